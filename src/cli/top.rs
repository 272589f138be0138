//! `crestline top`: what runs, live, in a terminal.
//!
//! A thread follows the process and begins again when it is gone; this one draws and listens to
//! the keys. Whatever ends it, the terminal is as it was before.

mod feed;
mod row;
mod screen;
mod world;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::Receiver,
    },
    time::Duration,
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use structopt::StructOpt;

use crate::{
    admin::client::ClientError,
    cli::{
        EXIT_USAGE,
        remote::{EXIT_FAILURE, Failure, finish, socket_of},
        say,
        top::{
            feed::News,
            world::{Order, World},
        },
    },
};

/// So often it is looked for news while no key is pressed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The rows that a page of a long list is moved by.
const PAGE: isize = 10;

/// The options of `crestline top`.
#[derive(Clone, Copy, Debug, StructOpt)]
pub(super) struct Top {
    /// What comes first: load, errors or name
    #[structopt(long, value_name = "WHAT", default_value = "load")]
    sort: Order,
}

impl Top {
    /// Shows what runs until a key or a signal ends it.
    pub(super) fn run(self, conf: Option<PathBuf>) -> ExitCode {
        if !io::stdout().is_terminal() {
            say("error: `crestline top` draws on a terminal, and its output is none\n\
                 help: for programs there is `crestline status --json`\n");
            return ExitCode::from(EXIT_USAGE);
        }
        finish(socket_of(conf).and_then(|socket| self.show(socket)))
    }

    /// Whoever cannot be reached at first is told of as by other commands; who is gone later, on
    /// the screen.
    fn show(self, socket: PathBuf) -> Result<ExitCode, Failure> {
        let news = feed::follow(socket);
        let mut world = World::new(self.sort);
        match news.recv() {
            Ok(News::Lost(why)) => return Err(why.into()),
            Ok(first) => world.hear(first),
            Err(_) => return Err(ClientError::Broken("nobody follows it".to_owned()).into()),
        }
        let shown = on_the_screen(&mut world, &news);
        ratatui::restore();
        Ok(match shown {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                say(&format!("error: cannot draw on the terminal: {why}\n"));
                ExitCode::from(EXIT_FAILURE)
            }
        })
    }
}

/// Draws until a key or a signal ends it.
fn on_the_screen(world: &mut World, news: &Receiver<News>) -> io::Result<()> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        flag::register(signal, ends.clone())?;
    }
    let mut terminal = ratatui::try_init()?;
    while !ends.load(Relaxed) {
        for one in news.try_iter() {
            world.hear(one);
        }
        terminal.draw(|frame| screen::draw(frame, world))?;
        if event::poll(LOOK_EVERY)? && !heed(&event::read()?, world) {
            break;
        }
    }
    Ok(())
}

/// Does what a key is for; false if it is the last.
fn heed(event: &Event, world: &mut World) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return true; // a new size is drawn anyway
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('l') => world.order = Order::Load,
        KeyCode::Char('e') => world.order = Order::Errors,
        KeyCode::Char('n') => world.order = Order::Name,
        KeyCode::Down | KeyCode::Char('j') => world.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => world.scroll(-1),
        KeyCode::PageDown | KeyCode::Char(' ') => world.scroll(PAGE),
        KeyCode::PageUp => world.scroll(-PAGE),
        KeyCode::Home => world.scroll(isize::MIN),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_and_end() {
        let mut world = World::new(Order::Load);
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let plain = |code| key(code, KeyModifiers::NONE);
        assert!(heed(&plain(KeyCode::Char('e')), &mut world));
        assert_eq!(world.order, Order::Errors);
        assert!(heed(&plain(KeyCode::Char('c')), &mut world), "without Ctrl it is no end");
        assert!(heed(&Event::Resize(10, 10), &mut world));
        for end in [
            plain(KeyCode::Char('q')),
            plain(KeyCode::Esc),
            key(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert!(!heed(&end, &mut world), "{end:?}");
        }
    }
}
