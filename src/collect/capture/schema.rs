//! What the records of a capture look like: the types of a tick, described as data.
//!
//! The description is taken from the types themselves, by having serde deserialize each of them from nothing while we
//! write down what it asks for. So it cannot be forgotten when a type changes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::tick::{Names, Session, Tick};

/// The description of every type in a capture, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    pub(super) types: BTreeMap<String, Type>,
}

/// A type that has a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    /// Its fields.
    Struct(Fields),
    /// Its variants, in order; `None` for one that was not seen yet.
    Enum(Vec<(String, Option<Fields>)>),
}

/// What a struct or a variant holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fields {
    None,
    One(Shape),
    Unnamed(Vec<Shape>),
    Named(Vec<(String, Shape)>),
}

/// What stands in a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Shape {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Str,
    Unit,
    Option(Box<Shape>),
    Seq(Box<Shape>),
    Tuple(Vec<Shape>),
    /// A named type.
    Is(String),
}

/// An enum is seen one variant at a time: so many looks are enough for any that we have, and few are needed.
const LOOKS: usize = 1000;

impl Schema {
    /// The types of this program.
    pub fn current() -> &'static Schema {
        static CURRENT: OnceLock<Schema> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let mut schema = Schema::default();
            schema.look_at::<Session>();
            schema.look_at::<Tick>();
            schema.look_at::<Names>();
            schema
        })
    }

    /// As it stands in a file.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // Strings and lists only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From a file. (JSON, because its depth is limited by the reader.)
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("the description of its types is not one ({error})"))
    }

    /// Describes `T` and everything in it.
    pub(super) fn look_at<'de, T: Deserialize<'de>>(&mut self) {
        let mut seen = BTreeMap::new();
        for _ in 0..LOOKS {
            let mut shape = Shape::Unit;
            // A type that refuses the invented value is described as far as it was seen.
            let _ = T::deserialize(Tracer { schema: self, looks: &mut seen, shape: &mut shape });
            if self.is_complete() {
                break;
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.types.values().all(|kind| match kind {
            Type::Struct(_) => true,
            Type::Enum(variants) => variants.iter().all(|(_, fields)| fields.is_some()),
        })
    }
}

/// A deserializer that invents a value and notes what kind was asked for.
struct Tracer<'a> {
    schema: &'a mut Schema,
    /// How often each enum was seen: the next variant is shown each time.
    looks: &'a mut BTreeMap<&'static str, usize>,
    shape: &'a mut Shape,
}

impl Tracer<'_> {
    fn lend<'b>(&'b mut self, shape: &'b mut Shape) -> Tracer<'b> {
        Tracer { schema: self.schema, looks: self.looks, shape }
    }
}

macro_rules! plain {
    ($($method:ident $visit:ident $shape:ident $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            *self.shape = Shape::$shape;
            visitor.$visit($value)
        })*
    };
}

type Failed = de::value::Error;

fn unsupported<T>(what: &str) -> Result<T, Failed> {
    Err(de::Error::custom(format!("captures hold no {what}")))
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = Failed;

    plain! {
        deserialize_bool visit_bool Bool false;
        deserialize_u8 visit_u8 U8 0;
        deserialize_u16 visit_u16 U16 0;
        deserialize_u32 visit_u32 U32 0;
        deserialize_u64 visit_u64 U64 0;
        deserialize_i8 visit_i8 I8 0;
        deserialize_i16 visit_i16 I16 0;
        deserialize_i32 visit_i32 I32 0;
        deserialize_i64 visit_i64 I64 0;
        deserialize_f32 visit_f32 F32 0.0;
        deserialize_f64 visit_f64 F64 0.0;
        deserialize_str visit_borrowed_str Str "";
        deserialize_string visit_borrowed_str Str "";
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        *self.shape = Shape::Unit;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failed> {
        let mut inner = Shape::Unit;
        let value = visitor.visit_some(self.lend(&mut inner));
        *self.shape = Shape::Option(Box::new(inner));
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failed> {
        let mut items = Vec::new();
        let value = visitor.visit_seq(Items { tracer: self.lend(&mut Shape::Unit), left: 1, items: &mut items });
        *self.shape = Shape::Seq(Box::new(items.pop().unwrap_or(Shape::Unit)));
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Failed> {
        let mut items = Vec::new();
        let value = visitor.visit_seq(Items { tracer: self.lend(&mut Shape::Unit), left: len, items: &mut items });
        *self.shape = Shape::Tuple(items);
        value
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Failed> {
        self.schema.types.insert(name.into(), Type::Struct(Fields::None));
        *self.shape = Shape::Is(name.into());
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let mut inner = Shape::Unit;
        let value = visitor.visit_newtype_struct(self.lend(&mut inner));
        self.schema.types.insert(name.into(), Type::Struct(Fields::One(inner)));
        *self.shape = Shape::Is(name.into());
        value
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let mut items = Vec::new();
        let value = visitor.visit_seq(Items { tracer: self.lend(&mut Shape::Unit), left: len, items: &mut items });
        self.schema.types.insert(name.into(), Type::Struct(Fields::Unnamed(items)));
        *self.shape = Shape::Is(name.into());
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let mut items = Vec::new();
        let left = fields.len();
        let value = visitor.visit_seq(Items { tracer: self.lend(&mut Shape::Unit), left, items: &mut items });
        self.schema.types.insert(name.into(), Type::Struct(named(fields, items)));
        *self.shape = Shape::Is(name.into());
        value
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        *self.shape = Shape::Is(name.into());
        let looks = self.looks.entry(name).or_default();
        let at = *looks % variants.len().max(1);
        *looks += 1;
        let mut fields = Fields::None;
        let value =
            visitor.visit_enum(Variant { tracer: self.lend(&mut Shape::Unit), at: at as u32, fields: &mut fields });
        let unseen = || Type::Enum(variants.iter().map(|&variant| (variant.into(), None)).collect());
        if let Type::Enum(known) = self.schema.types.entry(name.into()).or_insert_with(unseen)
            && let Some((_, known)) = known.get_mut(at)
        {
            *known = Some(fields);
        }
        value
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("values of unknown type")
    }

    fn deserialize_char<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("characters")
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("byte strings")
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("byte strings")
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("maps")
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("identifiers")
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failed> {
        unsupported("ignored values")
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

fn named(fields: &[&str], shapes: Vec<Shape>) -> Fields {
    Fields::Named(fields.iter().map(|&field| field.into()).zip(shapes).collect())
}

/// The items of a sequence, a tuple or a struct.
struct Items<'a> {
    tracer: Tracer<'a>,
    left: usize,
    items: &'a mut Vec<Shape>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Failed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut shape = Shape::Unit;
        let value = seed.deserialize(self.tracer.lend(&mut shape));
        self.items.push(shape);
        value.map(Some)
    }
}

/// One variant of an enum.
struct Variant<'a> {
    tracer: Tracer<'a>,
    at: u32,
    fields: &'a mut Fields,
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = Failed;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failed> {
        let value = seed.deserialize(IntoDeserializer::<Failed>::into_deserializer(self.at))?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Failed;

    fn unit_variant(self) -> Result<(), Failed> {
        *self.fields = Fields::None;
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Failed> {
        let mut shape = Shape::Unit;
        let value = seed.deserialize(self.tracer.lend(&mut shape));
        *self.fields = Fields::One(shape);
        value
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Failed> {
        let mut items = Vec::new();
        let value =
            visitor.visit_seq(Items { tracer: self.tracer.lend(&mut Shape::Unit), left: len, items: &mut items });
        *self.fields = Fields::Unnamed(items);
        value
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let mut items = Vec::new();
        let left = fields.len();
        let value = visitor.visit_seq(Items { tracer: self.tracer.lend(&mut Shape::Unit), left, items: &mut items });
        *self.fields = named(fields, items);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_described_whole() {
        let schema = Schema::current();
        assert!(schema.is_complete(), "{schema:#?}");
        for name in ["Session", "Tick", "Names", "Lens", "State", "Life", "Loss", "StackEnd", "Sampler"] {
            assert!(schema.types.contains_key(name), "{name}");
        }
        let Some(Type::Enum(lenses)) = schema.types.get("Lens") else { panic!("Lens is an enum") };
        assert!(lenses.contains(&("Blocked".into(), Some(Fields::One(Shape::Is("State".into()))))));
        assert_eq!(Schema::from_json(&schema.to_json()).as_ref(), Ok(schema));
    }

    /// A capture that is older than a field gives it its default, so the struct must have one.
    #[test]
    fn records_may_grow() {
        use crate::tick::{
            Cost, CpuTick, DiskOpTick, DiskTick, Frame, Hist, Host, Module, NodeTick, ProcessFacts, Span, Stack,
            Symbol, ThreadTick,
        };
        fn grows<T: de::DeserializeOwned + Default + PartialEq>(name: &str) {
            let empty = serde_json::from_str::<T>("{}");
            assert!(empty.is_ok_and(|empty| empty == T::default()), "{name} needs serde(default)");
        }
        macro_rules! grow { ($($name:ident)*) => { $(grows::<$name>(stringify!($name));)* } }
        grow! {
            Session Tick Names Span Host ThreadTick ProcessFacts CpuTick NodeTick DiskTick DiskOpTick Cost Hist Module Frame
            Symbol Stack
        }
    }

    #[test]
    fn arrays_options_and_boxes_keep_their_shape() {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only described")]
        struct Sample {
            array: [u64; 2],
            maybe: Option<Box<u32>>,
            pairs: Vec<(u16, String)>,
        }
        let mut schema = Schema::default();
        schema.look_at::<Sample>();
        let json = String::from_utf8(schema.to_json()).unwrap_or_default();
        let expected = r#"{"types":{"Sample":{"struct":{"named":[["array",{"tuple":["u64","u64"]}],"#.to_owned()
            + r#"["maybe",{"option":"u32"}],["pairs",{"seq":{"tuple":["u16","str"]}}]]}}}}"#;
        assert_eq!(json, expected);
    }
}
