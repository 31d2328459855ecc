//! `streamhouse consume --group`: reading as a member of a group.

use std::io::Write as _;

use streamhouse_client::{CallError, StreamHouse, TopicPartition};
use streamhouse_consumer::{GroupConsumer, GroupEvent};

use super::{ConsumeArgs, Printer, of_read};
use crate::commands::topic::of_topic;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use streamhouse_units::counted;

/// Reads until there is no more to read, so many were read, or the user has seen enough; then commits and leaves.
///
/// # Errors
/// When the group cannot be joined, the topics cannot be read, or what was printed could not be committed.
pub(super) async fn print_all(
    args: &ConsumeArgs,
    group: &str,
    house: &StreamHouse,
    (printer, context): (&mut Printer, &Context),
) -> Result<Exit, Stop> {
    for name in &args.topics {
        if let Err(error) = context.or_interrupt(house.topic(name).describe()).await? {
            return Err(of_topic(&house.admin(), name, Failure::of_client(&error)).await.into());
        }
    }
    let mut builder = GroupConsumer::builder(house, group).client_id("streamhouse-cli").from(args.from);
    if let Some(timeout) = context.timeout {
        builder = builder.retry_for(timeout);
    }
    let mut consumer = builder.topics(args.topics.iter().cloned()).join();
    let ended = read(args, &mut consumer, (printer, context)).await;
    // Nobody has seen what a closed pipe did not take.
    if matches!(ended, Err(Stop::ClosedPipe)) {
        return ended;
    }
    let closed: Result<(), CallError> = consumer.close().await;
    let exit = ended?;
    closed.map_err(|error| Failure::of_client(&error))?;
    Ok(exit)
}

async fn read(
    args: &ConsumeArgs,
    consumer: &mut GroupConsumer,
    (printer, context): (&mut Printer, &Context),
) -> Result<Exit, Stop> {
    let mut interrupt = context.interrupt.clone();
    while printer.left > 0 {
        let event = tokio::select! {
            event = consumer.next() => event,
            () = interrupt.wanted() => return Ok(Exit::Interrupted),
        };
        let event = event.map_err(|error| match error {
            streamhouse_client::Error::Read(error) => of_read(&error),
            error => Failure::of_client(&error),
        })?;
        match event {
            GroupEvent::Batch { topic, batch } => {
                let stopped = printer.print(Some(&topic), &batch)?;
                // What is committed must have been printed.
                printer.out.flush()?;
                if let Some(next) = stopped {
                    consumer.done_up_to(&topic, batch.partition(), next);
                }
            }
            GroupEvent::Assigned(places) => context.output.say(&format!("reads {}", told(&places))),
            GroupEvent::Revoked(places) if !places.is_empty() => {
                context.output.say(&format!("gives up {}", told(&places)));
            }
            GroupEvent::CaughtUp if !args.follow => break,
            _ => {}
        }
    }
    Ok(Exit::Done)
}

/// `3 partitions: a/0 a/1 b/0`.
fn told(places: &[TopicPartition]) -> String {
    const NAMED_MAX: usize = 20;
    let count = counted(u64::try_from(places.len()).unwrap_or(u64::MAX), "partition");
    if places.is_empty() {
        return count;
    }
    let named = places.iter().take(NAMED_MAX).map(|place| format!(" {}/{}", place.topic, place.partition));
    let more = if places.len() > NAMED_MAX { " …" } else { "" };
    format!("{count}:{}{more}", named.collect::<String>())
}
