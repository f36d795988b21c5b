//! `dk ci user`: who may log in to the page with a password.

use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use anyhow::Context as _;

use crate::ci::web::auth::FOLDER;
use crate::ci::web::auth::github::{Application, Endpoints, GitHub};
use crate::ci::web::auth::passwords::{Error, Passwords};
use crate::client;
use crate::commands::blocking;
use crate::ui::{Ui, Usage};

/// Add, remove and list the users of the web page
///
/// What they may do is in the configuration: can-read and can-build. The user
/// admin may also change the page's settings. A page that is being served knows
/// of a change at once; who is logged in stays so. Users of a file
/// passwords.sexp of DataKitCI in that folder are taken over, once.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci user add alice --secrets-dir /etc/dk-ci
  pass ci/alice | dk ci user add alice --secrets-dir /etc/dk-ci --password-file -
  dk ci user list --secrets-dir /etc/dk-ci
  dk ci user github --client-id Iv1.8a61 --client-secret-file - --secrets-dir /etc/dk-ci

JSON:
  {\"name\"}")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Add a user, or change a password
    Add {
        /// The name: letters, digits, '.', '_' and '-'
        name: String,
        /// Read the password from the first line of a file, or of stdin with -
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Remove users
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// List the users
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Let users of GitHub log in, by an OAuth application registered there
    Github {
        /// The application's client id
        #[arg(
            long,
            value_name = "ID",
            required_unless_present = "off",
            requires = "client_secret_file"
        )]
        client_id: Option<String>,
        /// Read its client secret from the first line of a file, or of stdin with -
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        client_secret_file: Option<PathBuf>,
        /// Where GitHub sends a browser back to, if not where the application says
        #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
        callback: Option<String>,
        /// Let them no more
        #[arg(long, conflicts_with_all = ["client_id", "client_secret_file", "callback"])]
        off: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args, Debug)]
struct Place {
    /// The folder of secrets that dk ci serve uses
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    secrets_dir: PathBuf,
}

impl Place {
    /// Returns the file of users; those of the ancestor's are in it, too.
    fn users(&self) -> anyhow::Result<Passwords> {
        let users = Passwords::within(&self.secrets_dir.join(FOLDER));
        users.take_over(&self.secrets_dir)?;
        Ok(users)
    }
}

#[derive(serde::Serialize)]
struct User {
    name: String,
}

pub(super) async fn run(ui: &Ui, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            name,
            password_file,
            place,
        } => {
            let password = match password_file {
                Some(file) => blocking(move || read(&file)).await?,
                None => ui.password(&format!("Password of {name}"), "--password-file")?,
            };
            blocking(move || place.users()?.set(&name, &password).map_err(told)).await
        }
        Command::Remove { names, place } => {
            blocking(move || {
                let users = place.users()?;
                for name in &names {
                    users.remove(name).map_err(told)?;
                }
                Ok(())
            })
            .await
        }
        Command::List { place } => {
            let names = blocking(move || place.users()?.names().map_err(told)).await?;
            let mut records = ui.records();
            for name in names {
                records.show(&User { name }, |user: &User, out: &mut dyn Write| {
                    writeln!(out, "{}", user.name)
                })?;
            }
            records.finish()
        }
        Command::Github {
            client_id,
            client_secret_file,
            callback,
            off: _,
            place,
        } => {
            blocking(move || {
                let secret = client_secret_file.as_deref().map(read).transpose()?;
                let text = |entered: Option<String>| entered.unwrap_or_default();
                let (id, secret) = (text(client_id), text(secret));
                let application = Application::entered(&id, &secret, &text(callback));
                let application = application.map_err(|errors| {
                    let told = errors.iter().map(|(field, why)| format!("{field}: {why}"));
                    Usage::new(told.collect::<Vec<_>>().join(", "))
                })?;
                let github = GitHub::within(&place.secrets_dir.join(FOLDER), Endpoints::default());
                github
                    .configure(application.as_ref())
                    .context("cannot write the application")
            })
            .await
        }
    }
}

/// Reads the first line of a file.
fn read(file: &std::path::Path) -> anyhow::Result<String> {
    const LONGEST: u64 = 4096;
    let from: Box<dyn io::Read> = match file.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => {
            let opened = std::fs::File::open(file);
            Box::new(opened.with_context(|| file.display().to_string())?)
        }
    };
    let mut text = String::new();
    from.take(LONGEST)
        .read_to_string(&mut text)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Gives an error its exit status.
fn told(error: Error) -> anyhow::Error {
    match error {
        Error::Name(_) | Error::Length => Usage::new(error.to_string()).into(),
        Error::Unknown(name) => client::Error::NotFound {
            what: format!("user {name}"),
        }
        .into(),
        error => error.into(),
    }
}
