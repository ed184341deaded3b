//! The `millpond` binary: flags, configuration, wiring.

mod config;
mod demo;
mod log;
mod serve;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    let arguments = config::Arguments::parse();
    match run(arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("millpond: {message}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: config::Arguments) -> Result<(), String> {
    let (command, settings) = arguments.resolve()?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_new(&settings.log_level)
                .map_err(|e| format!("--log-level {}: {e}", settings.log_level))?,
        )
        .with_writer(std::io::stderr)
        .init();
    if let config::Command::Log(command) = &command {
        return log::run(&settings, command);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Planning recurses over the expression tree; the parser bounds its depth.
        .thread_stack_size(8 << 20)
        .build()
        .map_err(|e| format!("could not start: {e}"))?;
    match command {
        config::Command::Serve => runtime.block_on(serve::serve(settings)),
        config::Command::Demo(options) => runtime.block_on(demo::demo(settings, options)),
        config::Command::Log(command) => log::run(&settings, &command),
    }
}
