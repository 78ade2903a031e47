//! Reads records of another version by the description in their file: fields and variants go by name.
//!
//! What we do not know is skipped; what the file does not have takes its default, where the type says `serde(default)`.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::schema::{Fields, Schema, Shape, Type};

/// Deeper than any record of ours; a file that nests deeper was made to hurt.
const DEPTH: u32 = 32;

/// The value of the named type that `raw` holds, all of it.
pub(super) fn decode<T: DeserializeOwned>(schema: &Schema, name: &str, raw: &[u8]) -> Result<T, String> {
    let mut input = raw;
    let shape = Shape::Is(name.to_owned());
    let value =
        T::deserialize(Place { schema, input: &mut input, shape: &shape, depth: DEPTH }).map_err(|error| error.0)?;
    match input {
        [] => Ok(value),
        rest => Err(format!("{} bytes too many", rest.len())),
    }
}

#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl de::Error for Failed {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Failed(text.to_string())
    }
}

/// A place in the input, and what stands there.
struct Place<'a, 'de> {
    schema: &'a Schema,
    input: &'a mut &'de [u8],
    shape: &'a Shape,
    depth: u32,
}

impl<'a, 'de> Place<'a, 'de> {
    fn at<'b>(&'b mut self, shape: &'b Shape) -> Place<'b, 'de> {
        Place { schema: self.schema, input: self.input, shape, depth: self.depth.saturating_sub(1) }
    }

    fn bytes(&mut self, len: usize) -> Result<&'de [u8], Failed> {
        let (bytes, rest) = self.input.split_at_checked(len).ok_or_else(|| Failed("a record ends too early".into()))?;
        *self.input = rest;
        Ok(bytes)
    }

    /// A variable-length number as postcard writes it: seven bits a byte, low ones first.
    fn varint(&mut self, bits: u32) -> Result<u64, Failed> {
        let mut value = 0;
        for shift in (0..bits).step_by(7) {
            let &[byte] = self.bytes(1)? else { break };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let fits = bits == 64 || value >> bits == 0;
                let lost = shift > 57 && u64::from(byte) >> (64 - shift) != 0;
                return if fits && !lost { Ok(value) } else { Err(Failed("a number is too large".into())) };
            }
        }
        Err(Failed("a number has no end".into()))
    }

    /// Negative numbers zigzag.
    fn signed(&mut self, bits: u32) -> Result<i64, Failed> {
        let value = self.varint(bits)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length; nothing that we hold takes less than a byte an item.
    fn len(&mut self) -> Result<usize, Failed> {
        let len = usize::try_from(self.varint(64)?).unwrap_or(usize::MAX);
        if len > self.input.len() { Err(Failed("a list is longer than its record".into())) } else { Ok(len) }
    }

    fn text(&mut self) -> Result<&'de str, Failed> {
        let len = self.len()?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Failed("a text is not UTF-8".into()))
    }

    fn fields<V: Visitor<'de>>(mut self, fields: &'a Fields, visitor: V) -> Result<V::Value, Failed> {
        match fields {
            Fields::None => visitor.visit_unit(),
            Fields::One(shape) => visitor.visit_newtype_struct(self.at(shape)),
            Fields::Unnamed(shapes) => List { place: self, shapes: shapes.iter() }.all(visitor),
            Fields::Named(named) => visitor.visit_map(Record { place: self, fields: named.iter(), shape: None }),
        }
    }

    fn named<V: Visitor<'de>>(mut self, name: &str, visitor: V) -> Result<V::Value, Failed> {
        match self.schema.types.get(name) {
            None => Err(Failed(format!("the file does not describe its {name}"))),
            Some(Type::Struct(fields)) => self.fields(fields, visitor),
            Some(Type::Enum(variants)) => {
                let at = self.varint(32)?;
                match usize::try_from(at).ok().and_then(|at| variants.get(at)) {
                    Some((variant, Some(fields))) => visitor.visit_enum(Choice { place: self, variant, fields }),
                    _ => Err(Failed(format!("{name} has no variant {at}"))),
                }
            }
        }
    }
}

impl<'de> de::Deserializer<'de> for Place<'_, 'de> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failed> {
        if self.depth == 0 {
            return Err(Failed("a record is nested too deep".into()));
        }
        match self.shape {
            Shape::Bool => match self.bytes(1)? {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                _ => Err(Failed("neither true nor false".into())),
            },
            Shape::U8 => visitor.visit_u64(self.bytes(1)?.first().copied().unwrap_or_default().into()),
            Shape::I8 => visitor.visit_i64((self.bytes(1)?.first().copied().unwrap_or_default() as i8).into()),
            Shape::U16 => visitor.visit_u64(self.varint(16)?),
            Shape::U32 => visitor.visit_u64(self.varint(32)?),
            Shape::U64 => visitor.visit_u64(self.varint(64)?),
            Shape::I16 => visitor.visit_i64(self.signed(16)?),
            Shape::I32 => visitor.visit_i64(self.signed(32)?),
            Shape::I64 => visitor.visit_i64(self.signed(64)?),
            Shape::F32 => visitor.visit_f32(f32::from_le_bytes(self.bytes(4)?.try_into().unwrap_or_default())),
            Shape::F64 => visitor.visit_f64(f64::from_le_bytes(self.bytes(8)?.try_into().unwrap_or_default())),
            Shape::Str => visitor.visit_borrowed_str(self.text()?),
            Shape::Unit => visitor.visit_unit(),
            Shape::Option(inner) => match self.bytes(1)? {
                [0] => visitor.visit_none(),
                [1] => visitor.visit_some(self.at(inner)),
                _ => Err(Failed("neither there nor absent".into())),
            },
            Shape::Seq(item) => {
                let len = self.len()?;
                List { place: self, shapes: std::iter::repeat_n(&**item, len) }.all(visitor)
            }
            Shape::Tuple(shapes) => List { place: self, shapes: shapes.iter() }.all(visitor),
            Shape::Is(name) => self.named(name, visitor),
        }
    }

    // A place that became optional, or is no longer: both ways are read.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        match self.shape {
            Shape::Option(_) => self.deserialize_any(visitor),
            _ => visitor.visit_some(self),
        }
    }

    serde::forward_to_deserialize_any! {
        bool u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Items one after the other.
struct List<'a, 'de, S> {
    place: Place<'a, 'de>,
    shapes: S,
}

impl<'s, 'de, S: Iterator<Item = &'s Shape>> List<'_, 'de, S> {
    /// What the visitor takes of it; the rest is skipped.
    fn all<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failed> {
        let value = visitor.visit_seq(&mut self)?;
        while de::SeqAccess::next_element::<de::IgnoredAny>(&mut self)?.is_some() {}
        Ok(value)
    }
}

impl<'s, 'de, S: Iterator<Item = &'s Shape>> de::SeqAccess<'de> for List<'_, 'de, S> {
    type Error = Failed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failed> {
        self.shapes.next().map(|shape| seed.deserialize(self.place.at(shape))).transpose()
    }
}

/// Fields, by name.
struct Record<'a, 'de> {
    place: Place<'a, 'de>,
    fields: std::slice::Iter<'a, (String, Shape)>,
    shape: Option<&'a Shape>,
}

impl<'de> de::MapAccess<'de> for Record<'_, 'de> {
    type Error = Failed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failed> {
        let Some((name, shape)) = self.fields.next() else { return Ok(None) };
        self.shape = Some(shape);
        seed.deserialize(IntoDeserializer::<Failed>::into_deserializer(name.as_str())).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failed> {
        let shape = self.shape.take().ok_or_else(|| Failed("a value without a name".into()))?;
        seed.deserialize(self.place.at(shape))
    }
}

/// A variant, by name.
struct Choice<'a, 'de> {
    place: Place<'a, 'de>,
    variant: &'a str,
    fields: &'a Fields,
}

impl<'a, 'de> de::EnumAccess<'de> for Choice<'a, 'de> {
    type Error = Failed;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failed> {
        let value = seed.deserialize(IntoDeserializer::<Failed>::into_deserializer(self.variant))?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Choice<'_, 'de> {
    type Error = Failed;

    fn unit_variant(self) -> Result<(), Failed> {
        match self.fields {
            Fields::None => Ok(()),
            _ => Err(Failed(format!("{} holds something", self.variant))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Failed> {
        match self.fields {
            Fields::One(shape) => seed.deserialize(self.place.at(shape)),
            // Only what skips the value accepts that.
            fields => seed.deserialize(Whole { place: self.place, fields }),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failed> {
        self.place.fields(self.fields, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Failed> {
        self.place.fields(self.fields, visitor)
    }
}

/// All fields of a variant as one value.
struct Whole<'a, 'de> {
    place: Place<'a, 'de>,
    fields: &'a Fields,
}

impl<'de> de::Deserializer<'de> for Whole<'_, 'de> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.place.fields(self.fields, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::tick::{Lens, State, Tick};

    /// Records as an older version wrote them …
    mod old {
        use super::*;

        #[derive(Serialize, Deserialize)]
        pub enum Kind {
            Gone(u8),
            Plain,
            Pair { left: u32, right: i64 },
            Dropped { a: u8, b: String },
        }

        #[derive(Serialize, Deserialize)]
        pub struct Record {
            pub removed: Vec<Kind>,
            pub kept: u64,
            pub kind: Kind,
            pub wider: u16,
            pub maybe: Option<String>,
            pub real: f32,
            pub also_removed: Kind,
        }
    }

    /// … and as today's has them.
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    enum Kind {
        #[default]
        New,
        Pair {
            right: i64,
            left: u32,
        },
        Plain,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Record {
        added: Vec<u64>,
        kind: Kind,
        kept: u64,
        wider: u64,
        maybe: Option<String>,
        real: f32,
    }

    fn old_record(kind: old::Kind) -> (Schema, Vec<u8>) {
        let dropped = || old::Kind::Dropped { a: 7, b: "gone".into() };
        let record = old::Record {
            removed: vec![old::Kind::Gone(1), old::Kind::Plain, dropped()],
            kept: u64::MAX,
            kind,
            wider: 300,
            maybe: Some("name".into()),
            real: 0.5,
            also_removed: dropped(),
        };
        let mut schema = Schema::default();
        schema.look_at::<old::Record>();
        (schema, postcard::to_stdvec(&record).unwrap())
    }

    #[test]
    fn fields_and_variants_go_by_name() {
        let (schema, raw) = old_record(old::Kind::Pair { left: 4_000_000_000, right: i64::MIN });
        let kind = Kind::Pair { left: 4_000_000_000, right: i64::MIN };
        let maybe = Some("name".into());
        let expected = Record { added: vec![], kind, kept: u64::MAX, wider: 300, maybe, real: 0.5 };
        assert_eq!(decode::<Record>(&schema, "Record", &raw), Ok(expected));
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        let (schema, raw) = old_record(old::Kind::Gone(3));
        assert!(decode::<Record>(&schema, "Record", &raw).is_err_and(|what| what.contains("unknown variant `Gone`")));
        assert!(decode::<Record>(&schema, "Other", &raw).is_err_and(|what| what.contains("does not describe")));
        let (schema, mut raw) = old_record(old::Kind::Plain);
        raw.push(0);
        assert_eq!(decode::<Record>(&schema, "Record", &raw), Err("1 bytes too many".into()));
    }

    /// Today's tick as a version would have described it that did not know `host`, and knew a field that is gone.
    #[test]
    fn a_tick_of_another_version() {
        let mut tick = Tick { host: Default::default(), ..Tick::default() };
        tick.span.end_ns = 77;
        tick.threads.push(Default::default());
        tick.losses.push((crate::tick::Loss::LateTick, 3));
        let mut schema = Schema::current().clone();
        let Some(Type::Struct(Fields::Named(fields))) = schema.types.get_mut("Tick") else { panic!("Tick has fields") };
        fields.retain(|(name, _)| name != "host");
        fields.insert(1, ("gone".into(), Shape::Option(Box::new(Shape::Seq(Box::new(Shape::U16))))));
        let gone = Some(vec![1u16, 500]);
        let raw = postcard::to_stdvec(&(
            (&tick.span, gone, &tick.threads, &tick.processes, &tick.io, &tick.stacks, &tick.cpus),
            (
                &tick.nodes,
                &tick.disks,
                &tick.slow_requests,
                &tick.events,
                &tick.losses,
                &tick.cost,
                &tick.watch,
                &tick.names,
                &tick.quotas,
                &tick.stuck,
            ),
        ));
        assert_eq!(decode(&schema, "Tick", &raw.unwrap()), Ok(tick));
    }

    #[test]
    fn items_that_nobody_takes_are_skipped() {
        let mut schema = Schema::default();
        #[derive(Serialize, Deserialize)]
        struct Outer([u32; 5], u32);
        #[derive(Debug, PartialEq, Deserialize)]
        struct Shorter([u32; 3], u32);
        schema.look_at::<Outer>();
        let raw = postcard::to_stdvec(&Outer([1, 2, 300, 4, 5], 6)).unwrap();
        assert_eq!(decode(&schema, "Outer", &raw), Ok(Shorter([1, 2, 300], 6)));
    }

    #[test]
    fn a_type_within_itself_ends() {
        let json = br#"{"types":{"Loop":{"struct":{"one":{"is":"Loop"}}},
            "Record":{"struct":{"named":[["removed",{"is":"Loop"}]]}}}}"#;
        let schema = Schema::from_json(json).unwrap();
        assert_eq!(decode::<Record>(&schema, "Record", &[]), Err("a record is nested too deep".into()));
    }

    #[test]
    fn an_endless_list_ends() {
        let json = br#"{"types":{"Record":{"struct":{"named":[["removed",{"seq":"unit"}]]}}}}"#;
        let schema = Schema::from_json(json).unwrap();
        let raw = postcard::to_stdvec(&u64::MAX).unwrap();
        assert_eq!(decode::<Record>(&schema, "Record", &raw), Err("a list is longer than its record".into()));
    }

    proptest! {
        #[test]
        fn numbers_read_as_postcard_writes_them(
            numbers in any::<(u8, u16, u32, u64, i8, i16, i32, i64)>(), others in any::<(bool, f32, f64, String)>(),
        ) {
            type Both = ((u8, u16, u32, u64, i8, i16, i32, i64), (bool, f32, f64, String));
            #[derive(Debug, PartialEq, Serialize, Deserialize)]
            struct All(Both, Option<u32>);
            let mut schema = Schema::default();
            schema.look_at::<All>();
            let all = All((numbers, others), Some(7));
            let raw = postcard::to_stdvec(&all).unwrap();
            prop_assert_eq!(decode::<All>(&schema, "All", &raw), Ok(all));
        }

        #[test]
        fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ours = postcard::take_from_bytes::<Tick>(&raw).ok().filter(|(_, rest)| rest.is_empty());
            let described = decode::<Tick>(Schema::current(), "Tick", &raw).ok();
            prop_assert_eq!(ours.map(|(tick, _)| format!("{tick:?}")), described.map(|tick| format!("{tick:?}")));
        }
    }

    #[test]
    fn todays_tick_reads_by_its_description_too() {
        let mut tick = Tick::default();
        tick.stacks.push(crate::tick::StackWeight {
            process: Default::default(),
            lens: Lens::Blocked(State::Pipe),
            stack: Default::default(),
            weight: 1,
            count: 2,
        });
        tick.threads.push(Default::default());
        let raw = postcard::to_stdvec(&tick).unwrap();
        assert_eq!(decode(Schema::current(), "Tick", &raw), Ok(tick));
    }
}
