//! A disk whose syncs do nothing, and a broker whose log is written through it. No program that ships can be told to use it.

use std::{io, sync::Arc};

use anteroom_broker::{
    book::disk::{Disk, DiskFile, FileIdentity},
    boot::{self, Outside},
    config::{Config, Settings},
};

use super::super::Fallible;

/// A directory that is told to make things durable and does not.
#[derive(Debug)]
struct Unsynced(Arc<dyn Disk>);

#[derive(Debug)]
struct UnsyncedFile(Box<dyn DiskFile>);

impl Disk for Unsynced {
    fn lock(&self) -> io::Result<bool> {
        self.0.lock()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(self.0.open(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(self.0.create(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn identify(&self, name: &str) -> io::Result<FileIdentity> {
        self.0.identify(name)
    }
}

impl DiskFile for UnsyncedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.0.identity()
    }
}

/// Makes a data directory as `anteroom-broker init` does.
pub fn init(settings: Settings) -> Fallible<()> {
    let outside = Outside::system()?;
    boot::init(&Config::check(settings)?, outside.time.as_ref(), &*outside.environment)?;
    Ok(())
}

/// Serves as `anteroom-broker serve` does until it is killed, its log durable or not.
pub async fn serve(settings: Settings, unsynced: bool) -> Fallible<()> {
    let log: boot::LogDisk = if unsynced { |disk| Arc::new(Unsynced(disk)) } else { std::convert::identity };
    let running = boot::start_on(Config::check(settings)?, Outside::system()?, log).await?;
    let boot::Addresses { programme, enrolment, ops } = running.addresses();
    let key = running.log_key();
    println!("ready programme={programme} enrolment={enrolment} ops={ops} log_key={key}");
    // It ends by being killed; whatever else ends it is a failure.
    Err(format!("the broker ended: {:?}", running.ended().await).into())
}
