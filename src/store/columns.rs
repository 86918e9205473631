//! How the domain's types stand in a column: ids and states as text, moments as microseconds. Written once here so
//! that no query ever handles a bare string or number that means something.

use crate::domain::{
    event::EventKind,
    id::{
        ClipId, CommunityId, EgressId, EventId, Identity, JobId, PinId, RoomName, SessionId,
        ShareId, TrackId, UserId,
    },
    lifecycle::{ClipStatus, EndReason, SessionStatus},
    time::Timestamp,
};

macro_rules! value_column {
    ($type:ty, $raw:ty, $array:expr, $column:expr, $into:expr, $from:expr) => {
        impl From<$type> for sea_orm::Value {
            fn from(value: $type) -> sea_orm::Value {
                let into: fn($type) -> $raw = $into;
                into(value).into()
            }
        }

        impl sea_orm::TryGetable for $type {
            fn try_get_by<I: sea_orm::ColIdx>(
                row: &sea_orm::QueryResult,
                index: I,
            ) -> Result<Self, sea_orm::TryGetError> {
                let from: fn($raw) -> Option<$type> = $from;
                let raw = <$raw as sea_orm::TryGetable>::try_get_by(row, index)?;
                from(raw.clone()).ok_or_else(|| {
                    sea_orm::DbErr::Type(format!("{raw:?} is no {}", stringify!($type))).into()
                })
            }
        }

        impl sea_orm::sea_query::ValueType for $type {
            fn try_from(value: sea_orm::Value) -> Result<Self, sea_orm::sea_query::ValueTypeErr> {
                let from: fn($raw) -> Option<$type> = $from;
                from(<$raw as sea_orm::sea_query::ValueType>::try_from(value)?)
                    .ok_or(sea_orm::sea_query::ValueTypeErr)
            }
            fn type_name() -> String {
                stringify!($type).to_owned()
            }
            fn array_type() -> sea_orm::sea_query::ArrayType {
                $array
            }
            fn column_type() -> sea_orm::sea_query::ColumnType {
                $column
            }
        }

        impl sea_orm::sea_query::Nullable for $type {
            fn null() -> sea_orm::Value {
                <$raw as sea_orm::sea_query::Nullable>::null()
            }
        }

        impl sea_orm::IntoActiveValue<$type> for $type {
            fn into_active_value(self) -> sea_orm::ActiveValue<$type> {
                sea_orm::ActiveValue::Set(self)
            }
        }

        impl sea_orm::TryFromU64 for $type {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($type)))
            }
        }
    };
}

/// Types kept as their text: needs `as_str` and a way back.
macro_rules! text_column {
    ($($type:ty => $from:expr),+ $(,)?) => {$(
        $crate::store::columns::value_column!($type, String, sea_orm::sea_query::ArrayType::String, sea_orm::sea_query::ColumnType::Text, |value| value.as_str().to_owned(), $from);
    )+};
}

pub(crate) use text_column;
pub(crate) use value_column;

text_column!(
    SessionId => |text| Some(SessionId::new(text)),
    ClipId => |text| Some(ClipId::new(text)),
    JobId => |text| Some(JobId::new(text)),
    PinId => |text| Some(PinId::new(text)),
    ShareId => |text| Some(ShareId::new(text)),
    EgressId => |text| Some(EgressId::new(text)),
    EventId => |text| Some(EventId::new(text)),
    EventKind => |text| EventKind::from_name(&text),
    UserId => |text| Some(UserId::new(text)),
    CommunityId => |text| Some(CommunityId::new(text)),
    RoomName => |text| Some(RoomName::new(text)),
    Identity => |text| Some(Identity::new(text)),
    TrackId => |text| Some(TrackId::new(text)),
    SessionStatus => |text| SessionStatus::from_name(&text),
    EndReason => |text| EndReason::from_name(&text),
    ClipStatus => |text| ClipStatus::from_name(&text),
);

value_column!(
    Timestamp,
    i64,
    sea_orm::sea_query::ArrayType::BigInt,
    sea_orm::sea_query::ColumnType::BigInteger,
    |value| value.as_micros(),
    |micros| Some(Timestamp::from_micros(micros))
);
