//! A service's scheduler and the options of it.

use crate::config::diagnostics::{Mistake, Mistakes, Read, Span};
use crate::config::document::ServiceSection;
use crate::config::section::At;
use crate::config::snapshot::{SchedulerKind, SchedulerOptions};

/// Slots of the tables of all services with mh: 64 MiB in memory.
pub const MH_SLOTS_MAX: usize = 1 << 24;

/// The slots of the services looked at so far.
#[derive(Default)]
pub(super) struct Slots(usize);

/// The scheduler of a service, and its options.
pub(super) fn build(
    section: &ServiceSection,
    slots: &mut Slots,
    mistakes: &mut Mistakes,
) -> Read<(SchedulerKind, SchedulerOptions)> {
    let configured = section.scheduler?;
    let scheduler = configured.map_or(SchedulerKind::Wlc, |at| at.value);
    let usual = SchedulerOptions::default();
    let options = match section.scheduler_options? {
        None => usual,
        Some(given) => {
            let owner = Owner { scheduler, written: configured.map(|at| at.span) };
            let port = owner.option("port", given.port, usual.port, mistakes);
            let fallback = owner.option("fallback", given.fallback, usual.fallback, mistakes);
            let table_size = given.table_size;
            let table_size = owner.option("table_size", table_size, usual.table_size, mistakes);
            let expiration = given.expiration;
            let expiration = owner.option("expiration", expiration, usual.expiration, mistakes);
            SchedulerOptions {
                port: port?,
                fallback: fallback?,
                table_size: table_size?,
                expiration: expiration?,
            }
        }
    };
    if scheduler == SchedulerKind::Mh {
        let span = configured.map_or(section.header, |at| at.span);
        slots.check(options.table_size as usize, section.real_servers.len(), span, mistakes)?;
    }
    Ok((scheduler, options))
}

/// The scheduler that options are for, and where it was chosen.
struct Owner {
    scheduler: SchedulerKind,
    written: Option<Span>,
}

impl Owner {
    fn option<T>(
        &self,
        key: &'static str,
        given: Read<Option<At<T>>>,
        usual: T,
        mistakes: &mut Mistakes,
    ) -> Read<T> {
        let Some(At { value, span }) = given? else { return Ok(usual) };
        if SchedulerOptions::of(self.scheduler).contains(&key) {
            return Ok(value);
        }
        let owners: Vec<&str> = SchedulerKind::ALL
            .into_iter()
            .filter(|kind| SchedulerOptions::of(*kind).contains(&key))
            .map(SchedulerKind::name)
            .collect();
        let owners = owners.join(" and ");
        let message = format!("scheduler {} has no option `{key}`", self.scheduler.name());
        let mut mistake = Mistake::new(span, message)
            .expected(format!("only {owners} can have it"))
            .help(format!("remove it, or choose another scheduler than {}", self.scheduler.name()));
        if let Some(written) = self.written {
            mistake = mistake.related(written, "the scheduler");
        }
        Err(mistakes.report(mistake))
    }
}

impl Slots {
    /// Takes a table of `size` slots into account. `span` is where the scheduler was chosen.
    fn check(
        &mut self,
        size: usize,
        real_servers: usize,
        span: Span,
        mistakes: &mut Mistakes,
    ) -> Read<()> {
        if real_servers > size {
            let message = format!("{real_servers} real servers for a table of {size} slots");
            let mistake = Mistake::new(span, message)
                .expected("expected a slot for each real server, better a hundred")
                .help("choose a larger one, as in scheduler_options = { table_size = 65521 }");
            return Err(mistakes.report(mistake));
        }
        let before = self.0;
        self.0 += size;
        if before <= MH_SLOTS_MAX && self.0 > MH_SLOTS_MAX {
            let message = "the tables of all services with mh are too large together";
            let mistake = Mistake::new(span, message)
                .expected(format!("expected at most {MH_SLOTS_MAX} slots, here are more by now"))
                .help("choose smaller ones, as in scheduler_options = { table_size = 251 }");
            return Err(mistakes.report(mistake));
        }
        Ok(())
    }
}
