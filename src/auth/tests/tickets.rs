use std::time::Duration;

use super::super::grant::{Grant, Proof};
use super::super::refused::Refused;
use super::super::tickets::Tickets;
use super::NOW;
use crate::market::UnixNanos;

const LIFETIME: Duration = Duration::from_secs(30);
const PAGE: Option<&str> = Some("https://app.example");

fn grant(subject: &str, expires: Option<UnixNanos>) -> Grant {
    Grant {
        subject: subject.into(),
        role: "reader".into(),
        expires,
        proof: Proof::of("test", &[]),
    }
}

#[test]
fn a_ticket_is_redeemed_once_in_time_and_by_its_origin() {
    let mut tickets = Tickets::default();
    let issue = |tickets: &mut Tickets, origin, expires| {
        let issued = tickets.issue(grant("a", expires), origin, LIFETIME, 10, NOW);
        issued.expect("room for a ticket").0
    };
    let ticket = issue(&mut tickets, PAGE, None);
    assert_eq!(tickets.redeem(&ticket, PAGE, NOW), Ok(grant("a", None)));
    assert_eq!(tickets.redeem(&ticket, PAGE, NOW), Err(Refused::Ticket));
    for (issued_to, redeemed_by) in [
        (PAGE, None),
        (PAGE, Some("https://app.example.evil")),
        (PAGE, Some("null")),
        (None, PAGE),
    ] {
        let ticket = issue(&mut tickets, issued_to, None);
        let redeemed = tickets.redeem(&ticket, redeemed_by, NOW);
        assert_eq!(redeemed, Err(Refused::Ticket), "{issued_to:?}");
        let again = tickets.redeem(&ticket, issued_to, NOW);
        assert_eq!(again, Err(Refused::Ticket), "it is used up");
    }
    let late = issue(&mut tickets, None, None);
    let end = NOW.plus(LIFETIME);
    assert_eq!(tickets.redeem(&late, None, end), Err(Refused::Ticket));
    let short = issue(&mut tickets, None, Some(NOW.plus(Duration::from_secs(1))));
    let after = NOW.plus(Duration::from_secs(2));
    assert_eq!(tickets.redeem(&short, None, after), Err(Refused::Ticket));
    assert_eq!(tickets.redeem("", None, NOW), Err(Refused::Ticket));
}

#[test]
fn unused_tickets_are_bounded_and_forgotten_at_their_end() {
    let mut tickets = Tickets::default();
    let mut now = NOW;
    for number in 0..10 {
        let of = grant(&number.to_string(), None);
        assert!(tickets.issue(of, None, LIFETIME, 10, now).is_ok());
    }
    let one_more = tickets.issue(grant("x", None), None, LIFETIME, 10, now);
    assert_eq!(one_more, Err(Refused::Busy));
    now = now.plus(LIFETIME);
    // Used ones take no room.
    for _ in 0..1000 {
        let issued = tickets.issue(grant("y", None), None, LIFETIME, 10, now);
        let (ticket, ends) = issued.expect("room for a ticket");
        assert_eq!(ends, now.plus(LIFETIME));
        assert!(tickets.redeem(&ticket, None, now).is_ok());
        let (issued, order, subjects) = tickets.held();
        assert!(issued == 0 && order <= 20 && subjects == 0, "{order}");
    }
    let of_one: Vec<_> = (0..300)
        .map(|_| tickets.issue(grant("z", None), None, LIFETIME, 1000, now))
        .collect();
    assert_eq!(of_one.iter().filter(|issued| issued.is_ok()).count(), 256);
}
