//! Why a window is encoded as a whole instead.

use std::fmt;

use crate::error::Error;

/// What makes it impossible, or not certain enough, to encode only the edges of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Pictures of one group are shown before its key picture, or among those of another group.
    OpenGroup,
    /// Two pictures of a group have the same time.
    DoubledTimes,
    /// Parameter sets that we cannot read.
    UnreadableSets,
    /// Fields instead of frames.
    Interlaced,
    /// Another profile than baseline, main or high, or not 8 bits of 4:2:0.
    Profile,
    /// A description of colours that we cannot pass on to the encoder.
    Colour,
    /// The stream does not say how many pictures wait for later ones.
    UnknownOrder,
    /// Other parameter sets under the same id: the source began anew with other settings.
    ClashingSets,
    /// Size, profile or the like differ between parts.
    ChangedFormat,
    /// Every id is taken by the source.
    NoFreeId,
    /// Two key pictures meet at a join and could be taken for one.
    TwinKeys,
    /// More than two channels, another kind of AAC, or a change of rate or channels.
    Sound,
    /// The edges together are too long to be held in memory.
    TooMuch,
    /// What the encoder gave is not what it was asked for.
    Encoder(String),
    /// The writer does not take it, or something changed in the middle.
    Writer(String),
    /// The copy is larger than allowed; an encode can be made smaller.
    TooLarge,
    /// The finished file does not show what the source shows.
    Check(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Unfit::OpenGroup => "groups of pictures are not closed",
            Unfit::DoubledTimes => "two pictures have one time",
            Unfit::UnreadableSets => "the parameter sets cannot be read",
            Unfit::Interlaced => "the pictures are interlaced",
            Unfit::Profile => "the profile is not one that is encoded here",
            Unfit::Colour => "the description of colours is unknown",
            Unfit::UnknownOrder => "the depth of reordering is not said",
            Unfit::ClashingSets => "different parameter sets have one id",
            Unfit::ChangedFormat => "the format of the pictures changes",
            Unfit::NoFreeId => "every parameter set id is taken",
            Unfit::TwinKeys => "two key pictures meet at a join",
            Unfit::Sound => "the sound cannot be cut by frames",
            Unfit::TooMuch => "the edges are too large",
            Unfit::TooLarge => "it does not fit into the space reserved for it",
            Unfit::Encoder(why) | Unfit::Writer(why) | Unfit::Check(why) => why,
        };
        f.write_str(text)
    }
}

/// Why there is no file.
#[derive(Debug)]
pub(in crate::media) enum Refusal {
    /// Another way may make it.
    Unfit(Unfit),
    /// No way would.
    Failed(Error),
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Refusal {
        Refusal::Unfit(unfit)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}
