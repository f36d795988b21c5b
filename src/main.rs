//! Parses the command line, runs one command, and turns its error into an
//! exit status.
//!
//! SIGINT and SIGTERM drop the command's future, so that whatever it holds is
//! cleaned up, and then end the process as the signal does by itself. SIGPIPE
//! stays ignored: a reader of stdout that went away is an error like any
//! other, and ends the run quietly.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use datakit::commands::{self, Cli};
use datakit::ui::{Color, Exit, Ui, signals};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};

/// How long blocking work may go on after a signal before it is abandoned.
const GRACE: Duration = Duration::from_millis(250);

/// The one function of the C library's libm that anything here calls (tokio and
/// others, for their statistics): with our own, the library is not found, mapped and
/// prepared at each start, which is 0.09 of a small command's 1.5 ms.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
// SAFETY: it is what the C standard says of this name.
#[unsafe(no_mangle)]
extern "C" fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

/// How a command ended.
enum End {
    Returned(anyhow::Result<()>),
    Signal(i32),
}

fn main() -> ExitCode {
    commands::complete();
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let ui = cli.global.ui();
    let mut runtime = match cli.is_daemon() {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build();
    let runtime = match runtime.context("cannot start the asynchronous runtime") {
        Ok(runtime) => runtime,
        Err(error) => return report(&ui, error),
    };
    let end = runtime.block_on(run(&ui, cli));
    // What a signal interrupted may have failed for no other reason.
    let end = signals::came().map_or(end, End::Signal);
    match end {
        // Work that nobody waits for (a read of stdin) must not hold the exit up.
        End::Returned(result) => {
            runtime.shutdown_background();
            match result {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => report(&ui, error),
            }
        }
        End::Signal(number) => {
            runtime.shutdown_timeout(GRACE);
            commands::abandon();
            // Only fails for a signal that cannot be caught.
            let _ = signal_hook::low_level::emulate_default_handler(number);
            ExitCode::from(u8::try_from(128 + number).unwrap_or(1))
        }
    }
}

/// Runs the command until it is done or a signal ends it.
async fn run(ui: &Ui, cli: Cli) -> End {
    let signals = async {
        for number in [SIGINT, SIGTERM] {
            signals::listen(number)?;
        }
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => SIGINT,
                _ = terminate.recv() => SIGTERM,
            };
            if commands::is_held(number) {
                signals::forget();
                continue;
            }
            return std::io::Result::Ok(number);
        }
    };
    tokio::select! {
        biased;
        number = signals => match number {
            Ok(number) => End::Signal(number),
            Err(error) => End::Returned(Err(error).context("cannot listen for signals")),
        },
        result = commands::run(ui, cli) => End::Returned(result),
    }
}

/// Prints why the command line is refused, or the help it asks for.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader of stdout that went away has seen enough.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.trim_end();
    let ui = Ui::new(false, false, Color::Auto);
    match text.strip_prefix("error: ") {
        Some(text) => ui.line(&format!("dk: {text}")),
        None => ui.line(text),
    }
    ExitCode::from(2)
}

/// Prints an error, and returns the status it stands for.
fn report(ui: &Ui, error: anyhow::Error) -> ExitCode {
    if ui.is_closed() {
        return ExitCode::SUCCESS;
    }
    let status = commands::exit_status(&error);
    let cause = match error.downcast::<Exit>() {
        Ok(exit) => exit.cause,
        Err(error) => Some(error),
    };
    if let Some(error) = cause {
        ui.error(&error, commands::hint(&error));
    }
    ExitCode::from(status)
}
