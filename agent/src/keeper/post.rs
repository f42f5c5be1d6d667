//! The executor's end: starts the keeper, tells it the deadline and the end, and notices when it is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aizen_protocol::id::ChangeId;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use tokio::task::JoinHandle;

use super::{KEEP_WORD, Order, Word};
use crate::confirm::deadline::Deadline;
use crate::executor::Settings;

/// How long a change waits for its keeper, which is being started since the state before is read.
const STARTING: Duration = Duration::from_secs(2);
/// How long a keeper that was told the end may take to leave, before it is killed.
const LEAVING: Duration = Duration::from_secs(2);
/// From one look at its process to the next.
const LOOK: Duration = Duration::from_millis(5);
/// What a keeper needs of the executor's surroundings: how much is logged, and where (systemd.exec(5)).
const ENVIRONMENT: [&str; 2] = ["RUST_LOG", "JOURNAL_STREAM"];

/// A keeper as the executor holds it. One that is dropped without [`Keeper::end`] keeps watch: the executor is about to
/// end then, and its change is not.
#[derive(Debug)]
pub(crate) enum Keeper {
    /// No change needs one.
    None,
    /// It is being started beside other work.
    Starting(JoinHandle<io::Result<Post>>),
    /// It was started.
    Posted(Post),
    /// There is none, or none any more: why.
    Lost(String),
}

/// A started keeper.
#[derive(Debug)]
pub(crate) struct Post {
    child: Child,
    socket: OwnedFd,
}

impl Keeper {
    /// Begins to start one, on a thread of its own: the program's pages are read while the state before is.
    pub(crate) fn start(settings: &Settings, change: &ChangeId) -> Self {
        let program = settings.execute.helper.clone();
        let order = Order::new(settings, change);
        Self::Starting(tokio::task::spawn_blocking(move || {
            Post::new(&program, order)
        }))
    }

    /// Tells it the deadline. To be called before anything is touched.
    pub(crate) async fn arm(&mut self, deadline: &Deadline) {
        if let Self::Starting(starting) = self {
            *self = match tokio::time::timeout(STARTING, starting).await {
                Ok(Ok(Ok(post))) => Self::Posted(post),
                Ok(Ok(Err(error))) => Self::lost(format!("could not be started ({error})")),
                Ok(Err(error)) => Self::lost(format!("could not be started ({error})")),
                // One that is started later finds nobody to listen to, and ends.
                Err(_) => Self::lost("was not started in time".to_owned()),
            };
        }
        if let Self::Posted(post) = self {
            let armed = Word::Armed {
                until: deadline.until,
            };
            if let Err(error) = post.tell(&armed) {
                *self = Self::lost(format!("was not told the deadline ({error})"));
            }
        }
    }

    fn lost(why: String) -> Self {
        tracing::warn!("the second keeper of the deadline {why}");
        Self::Lost(why)
    }

    /// What a report says of it: nothing, if it was there all the time.
    pub(crate) fn note(&mut self) -> Option<String> {
        if let Self::Posted(post) = self
            && let Ok(Some(status)) = post.child.try_wait()
        {
            *self = Self::lost(format!("ended before the change did ({status})"));
        }
        match self {
            Self::Lost(why) => Some(format!(
                "the second keeper of the deadline {why}: the executor and its service manager alone kept it"
            )),
            Self::None | Self::Starting(_) | Self::Posted(_) => None,
        }
    }

    /// The change ended and is reported.
    pub(crate) async fn end(self) {
        let post = match self {
            Self::Posted(post) => post,
            Self::Starting(starting) => match starting.await {
                Ok(Ok(post)) => post,
                Ok(Err(_)) | Err(_) => return,
            },
            Self::None | Self::Lost(_) => return,
        };
        // Its end is nobody's business but this thread's: the next change waits for none.
        let reaper = std::thread::Builder::new().name("aizen-keeper".to_owned());
        if let Err(error) = reaper.spawn(move || post.end()) {
            tracing::warn!(%error, "a keeper that ended stays in the table of processes");
        }
    }
}

impl Post {
    fn new(program: &Path, order: Order) -> io::Result<Self> {
        // Packets, so that a word is whole; a closed end can be seen.
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = Command::new(program);
        command.arg(KEEP_WORD).arg(&order.state).env_clear();
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let child = command
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let post = Self { child, socket };
        post.tell(&Word::Begin(order))?;
        Ok(post)
    }

    /// Never waits: the few words fit into the socket, whether they are read or not.
    fn tell(&self, word: &Word) -> io::Result<()> {
        let bytes = serde_json::to_vec(word)?;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        send(&self.socket, &bytes, flags)?;
        Ok(())
    }

    fn end(mut self) {
        // One that is gone needs no word.
        self.tell(&Word::Ended).ok();
        let told = Instant::now();
        while told.elapsed() < LEAVING {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        tracing::warn!("a keeper that does not end is killed");
        // Both say that it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keeper_that_can_not_be_started_is_named_and_stops_nobody() {
        let mut settings = Settings::default();
        settings.execute.helper = "/nowhere/aizen".into();
        let mut keeper = Keeper::start(&settings, &"chg-1".parse().unwrap());
        let boot = "boot-a".parse().unwrap();
        let deadline = Deadline::after(boot, crate::clock::since_boot(), Duration::from_secs(60));
        keeper.arm(&deadline).await;
        let note = keeper.note().unwrap();
        assert!(note.contains("could not be started"), "{note}");
        keeper.end().await;
    }

    #[tokio::test]
    async fn a_keeper_that_ends_at_once_is_named() {
        let mut settings = Settings::default();
        settings.execute.helper = "/bin/true".into();
        let mut keeper = Keeper::start(&settings, &"chg-1".parse().unwrap());
        let boot = "boot-a".parse().unwrap();
        let deadline = Deadline::after(boot, crate::clock::since_boot(), Duration::from_secs(60));
        keeper.arm(&deadline).await;
        let note = loop {
            match keeper.note() {
                Some(note) => break note,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        assert!(note.contains("second keeper"), "{note}");
    }
}
