//! What a service's keys say together: persistence, one-packet scheduling, quorum and the rest.

use crate::config::diagnostics::{Mistake, Mistakes, Read};
use crate::config::document::{PersistenceSection, ServiceSection};
use crate::config::section::At;
use crate::config::snapshot::{Persistence, Protocol};

const NETMASK_V4_MAX: u8 = 32;
const NETMASK_V6_MAX: u8 = 128;

/// The families of a service's VIPs, as far as they are known.
fn has_vip(section: &ServiceSection, v4: bool) -> bool {
    section.listen.iter().any(|endpoint| endpoint.vip.is_ok_and(|vip| vip.value.is_ipv4() == v4))
}

/// `netmask` is that of the VIPs' family. With VIPs of both it is that of IPv4, and `netmask_v6`
/// that of IPv6.
pub(super) fn persistence(
    section: &ServiceSection,
    mistakes: &mut Mistakes,
) -> Read<Option<Persistence>> {
    let Some(PersistenceSection { timeout, netmask, netmask_v6 }) = section.persistence? else {
        return Ok(None);
    };
    section.listen.iter().try_for_each(|endpoint| endpoint.vip.map(|_| ()))?;
    section.listen_complete?;
    let (v4, v6) = (has_vip(section, true), has_vip(section, false));
    let (netmask, netmask_v6) = (netmask?, netmask_v6?);
    if let Some(At { span, .. }) = netmask_v6
        && !(v4 && v6)
    {
        let mistake = Mistake::new(span, "`netmask_v6` where all VIPs are of one family")
            .expected("expected VIPs of both families in `listen`")
            .help("write `netmask`: it goes by the family of the VIPs");
        return Err(mistakes.report(mistake));
    }
    let longest = if v4 { NETMASK_V4_MAX } else { NETMASK_V6_MAX };
    let first = match netmask {
        None => longest,
        Some(At { value, span }) => match u8::try_from(value) {
            Ok(netmask) if netmask <= longest => netmask,
            _ => {
                let help = if v4 && v6 {
                    "with VIPs of both families it is IPv4's; IPv6 has `netmask_v6`"
                } else {
                    "clients have addresses of the VIP's family"
                };
                let mistake = Mistake::new(span, format!("`netmask` is out of range: {value}"))
                    .expected(format!("expected a prefix length from 1 to {longest}"))
                    .help(help);
                return Err(mistakes.report(mistake));
            }
        },
    };
    let second = netmask_v6.and_then(|at| u8::try_from(at.value).ok()).unwrap_or(NETMASK_V6_MAX);
    let (netmask_v4, netmask_v6) = if v4 { (first, second) } else { (NETMASK_V4_MAX, first) };
    Ok(Some(Persistence { timeout: timeout?, netmask_v4, netmask_v6 }))
}

/// A switch that means something to one protocol only.
pub(super) fn of_protocol(
    section: &ServiceSection,
    key: &str,
    value: Read<Option<At<bool>>>,
    protocol: Protocol,
    why: &str,
    mistakes: &mut Mistakes,
) -> Read<bool> {
    let Some(At { value, span }) = value? else { return Ok(false) };
    if !value {
        return Ok(false);
    }
    section.listen_complete?;
    for endpoint in &section.listen {
        if endpoint.protocol?.value == protocol {
            return Ok(true);
        }
    }
    let Some(Ok(first)) = section.listen.first().map(|endpoint| endpoint.protocol) else {
        return Ok(true);
    };
    let mistake = Mistake::new(span, format!("`{key}` on a {} service", first.value))
        .expected(why.to_owned())
        .related(first.span, "the protocol")
        .help(format!("remove it, or make it a {protocol} service"));
    Err(mistakes.report(mistake))
}

pub(super) fn expire_quiescent(section: &ServiceSection, mistakes: &mut Mistakes) -> Read<bool> {
    let Some(At { value, span }) = section.expire_quiescent? else { return Ok(false) };
    if value && section.persistence?.is_none() {
        let mistake = Mistake::new(span, "`expire_quiescent` without `persistence`")
            .expected("it ends what persistence keeps with a real server of weight 0")
            .help("remove it, or add persistence = {}");
        return Err(mistakes.report(mistake));
    }
    Ok(value)
}

/// `quorum` and `quorum_hysteresis`, by the rule of keepalived.
pub(super) fn quorum(section: &ServiceSection, mistakes: &mut Mistakes) -> Read<(u32, u32)> {
    let (quorum, hysteresis) = (section.quorum?, section.quorum_hysteresis?);
    let weight = quorum.map_or(1, |at| at.value);
    let Some(At { value, span }) = hysteresis else { return Ok((weight, 0)) };
    if value < weight {
        return Ok((weight, value));
    }
    let message = format!("`quorum_hysteresis` {value} is not below `quorum` {weight}");
    let mistake = Mistake::new(span, message)
        .expected(format!("expected at most {}", weight - 1))
        .help("the service would not be down with no real server left");
    Err(mistakes.report(match quorum {
        Some(quorum) => mistake.related(quorum.span, "the quorum"),
        None => mistake,
    }))
}
