//! Sessions, their epochs, the index of segments, and what keeps segments from cleanup.

use sea_orm_migration::prelude::*;

use crate::columns::{
    big, big_default, big_opt, drop_tables, flag, index, int, int_opt, table, text, text_opt,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(table("setting", &["key"], vec![text("key"), text("value")])).await?;
        manager.create_table(session()).await?;
        // One place per user: the limit that no look-before-insert can keep.
        manager
            .create_index(
                index("ux_session_place", "session", &["user_id"], true)
                    .and_where(Expr::col(Alias::new("holds_place")).eq(true))
                    .to_owned(),
            )
            .await?;
        for statement in [
            index("ix_session_user", "session", &["user_id", "created_at"], false),
            index("ix_session_room", "session", &["room_name", "status"], false),
            index("ix_session_status", "session", &["status"], false),
            index("ix_session_open", "session", &["buffer_gone_at", "capturable_until"], false),
        ] {
            manager.create_index(statement).await?;
        }
        manager.create_table(epoch()).await?;
        manager.create_index(index("ux_epoch_egress", "epoch", &["egress_id"], true)).await?;
        manager.create_index(index("ix_epoch_status", "epoch", &["status"], false)).await?;
        manager.create_table(segment()).await?;
        manager
            .create_index(index("ix_segment_time", "segment", &["session_id", "ends_at"], false))
            .await?;
        manager
            .create_index(
                index("ix_segment_condemned", "segment", &["condemned_at"], false)
                    .and_where(Expr::col(Alias::new("condemned_at")).is_not_null())
                    .to_owned(),
            )
            .await?;
        manager.create_table(pin()).await?;
        manager.create_index(index("ix_pin_session", "pin", &["session_id"], false)).await?;
        manager.create_index(index("ix_pin_clip", "pin", &["clip_id"], false)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["pin", "segment", "epoch", "session", "setting"]).await
    }
}

fn session() -> TableCreateStatement {
    table(
        "session",
        &["id"],
        vec![
            text("id"),
            text("user_id"),
            text("started_by"),
            text_opt("username"),
            text_opt("community_id"),
            text("room_name"),
            text("identity"),
            text("quality"),
            text("status"),
            // true while the user's and the community's place is held; given back with the same statement
            flag("holds_place"),
            flag("auto_started"),
            int("current_epoch"),
            // the source's size as LiveKit said it; 0 = unknown
            int("source_width"),
            int("source_height"),
            big("started_at"),
            big_opt("ended_at"),
            text_opt("end_reason"),
            big_opt("capturable_until"),
            big_opt("media_starts_at"),
            big_opt("media_ends_at"),
            // set while no share is seen: rejoin_seconds count from here
            big_opt("share_lost_at"),
            int("restart_attempts"),
            big_opt("restart_at"),
            big_default("highest_rate", 0),
            // raised by every pin and every condemnation: the row on which the two meet
            big_default("pin_seq", 0),
            flag("discard"),
            big_opt("stop_requested_at"),
            // when the last byte and the directory went
            big_opt("buffer_gone_at"),
            big("created_at"),
            big("updated_at"),
        ],
    )
}

fn epoch() -> TableCreateStatement {
    table(
        "epoch",
        &["session_id", "number"],
        vec![
            text("session_id"),
            int("number"),
            text("status"),
            text_opt("egress_id"),
            // relative to the buffer root; unique by the session id in it
            text("path"),
            text("video_track_id"),
            text_opt("audio_track_id"),
            int("width"),
            int("height"),
            big("sent_at"),
            big_opt("answered_at"),
            // an epoch that is still `starting` after this moment failed to start
            big("deadline_at"),
            // EgressInfo.started_at of the answer, corrected by clock_offset_us it lies in [sent_at, answered_at]
            big_opt("host_started_at"),
            big_opt("clock_offset_us"),
            big_opt("media_started_at"),
            // screen time of PTS 3600 s, fixed once
            big_opt("zero_at"),
            text_opt("basis"),
            big_opt("delay_ms"),
            // when the first segment was seen while media_started_at was not known yet
            big_opt("first_seen_at"),
            // our clock when the newest segment was indexed: the watchdog counts from here
            big_opt("last_segment_at"),
            flag("playlist_ended"),
            big_opt("stop_sent_at"),
            big_opt("ended_at"),
            text_opt("outcome"),
            text_opt("error"),
        ],
    )
}

fn segment() -> TableCreateStatement {
    table(
        "segment",
        &["session_id", "epoch", "number"],
        vec![
            text("session_id"),
            int("epoch"),
            big("number"),
            text("file_name"),
            // usable, or why not
            text("state"),
            // 90 kHz, unwrapped
            big("pts_start"),
            big("pts_end"),
            // screen time
            big("starts_at"),
            big("ends_at"),
            // PROGRAM-DATE-TIME, egress host clock
            big("label_at"),
            big("size_bytes"),
            // JSON list of PTS (90 kHz, unwrapped)
            text("key_frames"),
            big("frame_ticks"),
            flag("has_audio"),
            int_opt("width"),
            int_opt("height"),
            big_opt("condemned_at"),
            big("indexed_at"),
        ],
    )
}

fn pin() -> TableCreateStatement {
    table(
        "pin",
        &["id"],
        vec![
            text("id"),
            text("session_id"),
            text("clip_id"),
            big("from_at"),
            big("to_at"),
            // set when the clip failed: kept for a retry until then
            big_opt("expires_at"),
            big("created_at"),
        ],
    )
}
