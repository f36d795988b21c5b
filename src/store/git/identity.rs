//! Who commits when nobody is named: the environment, then Git's configuration.

use crate::model::Identity;
use crate::store::{Error, Result};

/// Returns the name and the address, as far as they are known. `configured`
/// reads the configuration, which is not always needed.
pub(super) fn known(
    configured: impl FnOnce(&str, &str) -> Result<(Option<String>, Option<String>)>,
) -> Result<(Option<String>, Option<String>)> {
    let variable = |name| filled(&std::env::var_os(name)?.to_string_lossy());
    let named = |what| {
        variable(format!("GIT_AUTHOR_{what}")).or_else(|| variable(format!("GIT_COMMITTER_{what}")))
    };
    let (name, email) = (named("NAME"), named("EMAIL"));
    if name.is_some() && email.is_some() {
        return Ok((name, email));
    }
    let (own_name, own_email) = configured("user.name", "user.email")?;
    Ok((name.or(own_name), email.or(own_email)))
}

/// Returns a value that says something.
pub(super) fn filled(value: &str) -> Option<String> {
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Returns who the user is outside any repository: the environment, the user's
/// and the system's configuration of Git, or dk's default.
pub fn user() -> Result<Identity> {
    let failed = |error| Error::Failed {
        what: "cannot read Git's configuration".into(),
        source: error,
    };
    let (name, email) = known(|name, email| {
        let globals = gix::config::File::from_globals().map_err(|error| failed(error.into()))?;
        let overrides = gix::config::File::from_environment_overrides()
            .map_err(|error| failed(error.into()))?;
        let text = |key| {
            let value = overrides.string(key).or_else(|| globals.string(key))?;
            filled(&value.to_string())
        };
        Ok((text(name), text(email)))
    })?;
    let default = Identity::default();
    Ok(Identity {
        name: name.unwrap_or(default.name),
        email: email.unwrap_or(default.email),
    })
}
