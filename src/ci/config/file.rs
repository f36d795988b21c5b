//! The text form: what TOML may hold where, with the place of everything that
//! is looked at closer later. The comments are the texts of the JSON Schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::de::{
    self, Deserialize, DeserializeOwned, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess,
    Visitor,
};

use super::place::{At, Faults, Invalid};

/// The engine's configuration (dk-ci(5))
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct EngineFile {
    /// The branch of the store that the bridge writes. Default: github-metadata
    pub metadata_branch: Option<At<String>>,
    /// What a status' context begins with. Default: ci/datakit
    pub status_prefix: Option<At<String>>,
    /// Named pools: how many steps may be in each at a time
    #[serde(default)]
    pub pool: Table<At<u32>>,
    /// The web page
    #[serde(default)]
    pub web: WebTable,
    /// The projects
    #[serde(default)]
    pub project: Vec<At<ProjectTable>>,
}

/// The steps of the tree that holds this file (dk-ci(5))
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TreeFile {
    /// The steps, by name
    #[serde(default)]
    pub step: Table<At<StepTable>>,
}

#[derive(Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WebTable {
    /// The name of this CI. Default: datakit-ci
    pub name: Option<At<String>>,
    /// Who may read: everyone, USER, github:LOGIN, org:NAME, repo:USER/REPOSITORY. Default: everyone
    pub can_read: Option<OneOrMore<String>>,
    /// Who may rebuild, cancel and approve. Default: admin
    pub can_build: Option<OneOrMore<String>>,
    /// Where the store can be browsed: the URL of its copy at GitHub
    pub state_repo: Option<At<String>>,
    /// SHA-256 of the bearer token that opens /metrics, as hexadecimal digits
    pub metrics_token: Option<At<String>>,
    /// What GitHub is asked for at login. Default: read:org, repo
    pub scopes: Option<OneOrMore<String>>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ProjectTable {
    /// The repository at the forge: USER/REPOSITORY
    pub repo: At<String>,
    /// Where its commits come from: a URL or a path
    pub source: At<String>,
    /// Where people see it, with paths as GitHub has them. Default: GitHub, if the source is there
    pub browse: Option<At<String>>,
    /// Patterns of targets. Default: heads/**, tags/**, pr/*
    pub targets: Option<OneOrMore<String>>,
    /// Branches on the front page. Default: master
    pub dashboards: Option<OneOrMore<String>>,
    /// The file of the tested tree that describes the steps
    pub steps_from: Option<At<String>>,
    /// The steps, by name; with steps-from only what the tree may not say of them
    #[serde(default)]
    pub step: Table<At<StepTable>>,
    /// Secrets, and who may have them
    #[serde(default)]
    pub secret: Vec<SecretTable>,
    /// Pull requests from other repositories: approve (run when somebody approved) or sandbox. Default: approve
    pub untrusted: Option<At<String>>,
    /// What is kept of old builds. Default: everything
    #[serde(default)]
    pub keep: KeepTable,
    /// Size of a log after which a step fails, as 64MiB. Default: no limit
    pub log_limit: Option<At<String>>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SecretTable {
    /// The variable it is given in, and its file in --secrets-dir
    pub name: At<String>,
    /// The steps that may have it
    pub steps: OneOrMore<String>,
    /// Patterns of the branches and tags on which they may
    pub refs: OneOrMore<String>,
}

#[derive(Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct KeepTable {
    /// How long logs are kept, as 30d
    pub logs: Option<At<String>>,
    /// How many builds of a step are kept
    pub builds: Option<At<u64>>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StepTable {
    /// A shell script, or a list of commands, each a list of arguments
    pub run: Option<At<RunValue>>,
    /// Globs of the files it sees and its result depends on; !GLOB leaves out. Default: the whole tree
    pub inputs: Option<OneOrMore<String>>,
    /// Files and folders it makes
    pub outputs: Option<OneOrMore<String>>,
    /// Steps that come before it and whose outputs it sees
    pub needs: Option<OneOrMore<String>>,
    /// The longest it may take, as 30m. Default: 1h
    pub timeout: Option<At<String>>,
    /// Names and their values: one run for each combination
    #[serde(default)]
    pub matrix: Table<OneOrMore<Scalar>>,
    /// When it is run at all
    pub when: Option<WhenTable>,
    /// How often it is tried again
    pub retry: Option<RetryTable>,
    /// What becomes of a lost result: lost (run again) or never. Default: lost
    pub rerun: Option<At<String>>,
    /// Variables
    #[serde(default)]
    pub env: Table<At<Scalar>>,
    /// The image of a container to run in; ${NAME} is a value of the matrix
    pub image: Option<At<String>>,
    /// The engine's only: the pool it takes a place in
    pub pool: Option<At<String>>,
    /// The engine's only: names of the secrets it is given
    pub secrets: Option<At<OneOrMore<String>>>,
    /// The engine's only: refs of other projects it depends on too
    pub also: Option<At<OneOrMore<AlsoTable>>>,
    /// The engine's only: another CI's status on the same commit that is waited for
    pub after_status: Option<At<String>>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AlsoTable {
    /// The repository: USER/REPOSITORY
    pub repo: At<String>,
    /// heads/NAME or tags/NAME
    #[serde(rename = "ref")]
    pub name: At<String>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WhenTable {
    /// Only on branches whose names (without heads/) match one of these
    pub branch: Option<OneOrMore<String>>,
    /// Only where a file changed that matches one of these globs
    pub changed: Option<OneOrMore<String>>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RetryTable {
    /// How many more times, at most 10
    pub times: At<u32>,
    /// For which failures: exit N, failure (any but a time-out) or timeout. Default: failure
    pub on: Option<OneOrMore<String>>,
}

/// Returns the JSON Schema of both kinds of file.
pub fn schema() -> serde_json::Value {
    let mut generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let engine = generator.subschema_for::<EngineFile>();
    let tree = generator.subschema_for::<TreeFile>();
    let definitions = generator.take_definitions(true);
    serde_json::json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "dk ci",
        "anyOf": [tree, engine],
        "definitions": definitions,
    })
}

/// Reads a text, or says where it is not what it should be.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    toml::from_str(text).map_err(|error| {
        let mut faults = Faults::new(text);
        let message = error.message().replace("unknown field", "unknown key");
        let message = message.replace("missing field", "missing key");
        faults.add(error.span().unwrap_or(0..0), message);
        faults.finish(()).expect_err("one was added")
    })
}

/// A table whose keys are the user's, in the order of the file.
pub(super) struct Table<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Table<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<At<String>, T>()? {
                    entries.push(entry);
                }
                entries.sort_by_key(|(key, _)| key.span().start);
                Ok(Table(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Table_of_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({"type": "object", "additionalProperties": value})
    }
}

/// A value, or a list of such values.
pub(super) struct OneOrMore<T>(pub Vec<At<T>>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = toml::Spanned::<Shape<T>>::deserialize(deserializer)?;
        let span = shape.span();
        Ok(match shape.into_inner() {
            Shape::One(one) => Self(vec![At::new(span, one)]),
            Shape::List(list) => Self(list),
        })
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("One_or_more_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({"anyOf": [value, {"type": "array", "items": value}]})
    }
}

enum Shape<T> {
    One(T),
    List(Vec<At<T>>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shape<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Shape<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shape<T>, E> {
                T::deserialize(text.into_deserializer()).map(Shape::One)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Shape<T>, E> {
                T::deserialize(number.into_deserializer()).map(Shape::One)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Shape<T>, E> {
                T::deserialize(number.into_deserializer()).map(Shape::One)
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Shape<T>, E> {
                T::deserialize(truth.into_deserializer()).map(Shape::One)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shape<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Shape::One)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Shape::List(list))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A string, a whole number or a truth value, as text.
pub(super) struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;
        impl Visitor<'_> for AsText {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string (put it in quotes)")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.into()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }
        }
        deserializer.deserialize_any(AsText)
    }
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({"type": ["string", "integer", "boolean"]})
    }
}

/// What `run` holds.
pub(super) enum RunValue {
    Script(String),
    Commands(Vec<Vec<String>>),
}

impl<'de> Deserialize<'de> for RunValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RunValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a script, or a list of commands, each a list of arguments")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RunValue, E> {
                Ok(RunValue::Script(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RunValue, A::Error> {
                let mut commands = Vec::new();
                while let Some(command) = seq.next_element()? {
                    commands.push(command);
                }
                Ok(RunValue::Commands(commands))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for RunValue {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Run".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items":
                {"type": "array", "minItems": 1, "items": {"type": "string"}}},
        ]})
    }
}
