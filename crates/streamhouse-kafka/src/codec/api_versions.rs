//! The answer to ApiVersions, the one request that is answered in any version.

use super::wire::{Body, Form, Writer};
use crate::{Api, Code, VersionRange};

/// One request that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpokenApi {
    pub(crate) key: i16,
    pub(crate) versions: VersionRange,
}

/// What is answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiVersionsAnswer {
    pub(crate) code: Code,
    pub(crate) apis: Vec<SpokenApi>,
}

impl ApiVersionsAnswer {
    /// The answer to a request of this version. One that is not known gets the oldest form, with nothing in it but how to
    /// ask better.
    pub(crate) fn to(version: i16) -> Self {
        let spoken = |api: Api| SpokenApi { key: api.key(), versions: api.told() };
        if Api::ApiVersions.serves(version) {
            Self { code: Code::NONE, apis: Api::all().map(spoken).collect() }
        } else {
            Self { code: Code::UNSUPPORTED_VERSION, apis: vec![spoken(Api::ApiVersions)] }
        }
    }

    /// No features are told, and no tags are written: librdkafka before 2.2 loses its place at tags here.
    pub(crate) fn encode(&self, version: i16) -> Body {
        let version = if Api::ApiVersions.serves(version) { version } else { 0 };
        let mut writer = Writer::new(Form::of(Api::ApiVersions, version));
        writer.i16(self.code.get());
        writer.array(self.apis.iter(), |writer, api| {
            writer.i16(api.key);
            writer.i16(api.versions.min);
            writer.i16(api.versions.max);
            writer.no_tags();
        });
        if version >= 1 {
            writer.i32(0);
        }
        writer.no_tags();
        writer.finish()
    }
}
