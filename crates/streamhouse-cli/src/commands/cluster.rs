//! `streamhouse cluster …`.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use streamhouse_client::{Admin, ClusterHealth, Mode, RaftStatus, Rebalance, StreamHouse};
use streamhouse_types::NodeId;
use streamhouse_types::error_code::ErrorCode;

use crate::consent::Consent;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use crate::output::{Stdout, millis, table};
use streamhouse_units::{self as units, count, counted};

/// How often a command that waits looks again.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait when `--timeout` says nothing.
const WAIT: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show what the cluster is and whether it is well
    #[command(after_help = "Example:\n  streamhouse cluster status")]
    Status,
    /// Check the cluster: exit 0 when it is well, 7 when it is not
    #[command(after_help = "Example:\n  streamhouse cluster health -o json")]
    Health,
    /// Wait until the cluster is well, within --timeout or two minutes
    #[command(
        after_help = "Examples:\n  streamhouse cluster wait\n  streamhouse cluster wait --nodes 3 --timeout 30s"
    )]
    Wait(WaitArgs),
    /// How the nodes agree on the metadata
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Move homes so that each node has its share
    #[command(
        after_help = "Examples:\n  streamhouse cluster rebalance --plan\n  streamhouse cluster rebalance"
    )]
    Rebalance(RebalanceArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Also wait until so many nodes take requests
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RaftCommand {
    /// Show leader, term and how far each member is
    #[command(after_help = "Example:\n  streamhouse cluster raft status")]
    Status,
    /// Ask a voter to lead; without an id the one that is furthest
    #[command(after_help = "Example:\n  streamhouse cluster raft transfer 2")]
    Transfer(TransferArgs),
    /// Set how many voters there should be: 1, 3 or 5
    #[command(after_help = "Example:\n  streamhouse cluster raft voters 3")]
    Voters(VotersArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Number of the node
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct VotersArgs {
    /// How many
    #[arg(value_name = "N")]
    voters: u32,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// Tell what would move, change nothing
    #[arg(long, alias = "dry-run")]
    plan: bool,
}

pub(crate) async fn run(command: ClusterCommand, context: &Context) -> Result<Exit, Stop> {
    let admin = match command {
        ClusterCommand::Wait(_) => reach(context).await?,
        _ => context.connect().await?,
    }
    .admin();
    match command {
        ClusterCommand::Status => {
            print_health(context, &context.call(admin.health()).await?)?;
            Ok(Exit::Done)
        }
        ClusterCommand::Health => {
            let health = context.call(admin.health()).await?;
            print_health(context, &health)?;
            Ok(if health.healthy { Exit::Done } else { Exit::CheckFailed })
        }
        ClusterCommand::Wait(args) => wait(context, &admin, &args).await,
        ClusterCommand::Raft(RaftCommand::Status) => {
            print_raft(context, &context.call(admin.raft_status()).await?)?;
            Ok(Exit::Done)
        }
        ClusterCommand::Raft(RaftCommand::Transfer(args)) => transfer(context, &admin, &args).await,
        ClusterCommand::Raft(RaftCommand::Voters(args)) => voters(context, &admin, &args).await,
        ClusterCommand::Rebalance(args) => rebalance(context, &admin, &args).await,
    }
}

#[derive(Serialize)]
struct HealthDocument<'a> {
    healthy: bool,
    checks: Vec<CheckDocument<'a>>,
    nodes: u32,
    nodes_serving: u32,
    voters: u32,
    wanted_voters: u32,
    topics: u64,
    partitions: u64,
    partitions_without_home: u64,
    feature_level: u32,
    leader_id: Option<u64>,
}

#[derive(Serialize)]
struct CheckDocument<'a> {
    name: &'a str,
    ok: bool,
    evidence: &'a str,
    fix: &'a str,
}

fn print_health(context: &Context, health: &ClusterHealth) -> Result<(), Stop> {
    let check = |check: &'_ streamhouse_client::HealthCheck| (check.name.clone(), check.clone());
    let checks: Vec<_> = health.checks.iter().map(check).collect();
    let document = HealthDocument {
        healthy: health.healthy,
        checks: checks
            .iter()
            .map(|(name, check)| CheckDocument {
                name,
                ok: check.ok,
                evidence: &check.evidence,
                fix: &check.fix,
            })
            .collect(),
        nodes: health.nodes,
        nodes_serving: health.nodes_serving,
        voters: health.voters,
        wanted_voters: health.wanted_voters,
        topics: health.topics,
        partitions: health.partitions,
        partitions_without_home: health.partitions_without_home,
        feature_level: health.feature_level,
        leader_id: health.leader.map(NodeId::get),
    };
    context.output.result(&document, |out| health_text(health, out))?;
    Ok(())
}

fn health_text(health: &ClusterHealth, out: &mut Stdout) -> std::io::Result<()> {
    let word = if health.healthy { "Healthy" } else { "Not healthy" };
    // Without a leader that a majority answers, nobody knows who takes requests.
    let led = health.checks.iter().all(|check| check.ok || check.name != "leader");
    let nodes = match health.leader.filter(|_| led) {
        Some(leader) => {
            format!("{} of {} nodes take requests, n{leader} leads", health.nodes_serving, health.nodes)
        }
        None => format!("Nobody is known to lead the {}", counted(health.nodes.into(), "node")),
    };
    let (topics, partitions) = (counted(health.topics, "topic"), counted(health.partitions, "partition"));
    writeln!(out, "{word}. {nodes}, {topics}, {partitions}.")?;
    for check in &health.checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        writeln!(out, "{mark}  {:<8}{}", check.name, check.evidence)?;
        if !check.ok {
            writeln!(out, "              {}", check.fix)?;
        }
    }
    Ok(())
}

/// Connects as soon as somebody answers: a cluster that is being started has nobody who does.
async fn reach(context: &Context) -> Result<StreamHouse, Stop> {
    let deadline = context.env.clock.now() + context.timeout.unwrap_or(WAIT);
    loop {
        match context.connect().await {
            Err(Stop::Failed(failure)) if failure.retryable && context.env.clock.now() < deadline => {
                context.env.clock.sleep(LOOK).await;
            }
            reached => return reached,
        }
    }
}

async fn wait(context: &Context, admin: &Admin, args: &WaitArgs) -> Result<Exit, Stop> {
    let deadline = context.env.clock.now() + context.timeout.unwrap_or(WAIT);
    loop {
        // A cluster that is being started refuses some of the calls.
        let found = admin.health().await;
        if let Ok(health) = &found
            && health.healthy
            && args.nodes.is_none_or(|nodes| health.nodes_serving >= nodes)
        {
            print_health(context, health)?;
            return Ok(Exit::Done);
        }
        if context.env.clock.now() >= deadline {
            let text = match found {
                Ok(health) => {
                    let failed = health.checks.iter().filter(|check| !check.ok);
                    missing(
                        health.nodes_serving,
                        args.nodes,
                        failed.map(|check| (&*check.name, &*check.evidence)),
                    )
                }
                Err(error) => error.to_string(),
            };
            return Err(Failure::of_code(
                ErrorCode::TimedOut,
                format!("the cluster is not well yet: {text}"),
            )
            .hint("see `streamhouse cluster health`")
            .into());
        }
        context.env.clock.sleep(LOOK).await;
    }
}

/// What a wait in vain has waited for: the nodes that were asked for, and every check that fails, with its evidence.
fn missing<'a>(
    serving: u32,
    wanted: Option<u32>,
    failed: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let few = wanted.filter(|wanted| serving < *wanted);
    let few = few.map(|wanted| format!("{serving} of the {wanted} nodes that are wanted take requests"));
    let failed = failed.map(|(name, evidence)| format!("{name}: {evidence}"));
    few.into_iter().chain(failed).collect::<Vec<_>>().join("; ")
}

#[derive(Serialize)]
struct RaftDocument {
    leader_id: Option<u64>,
    term: u64,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    members: Vec<MemberDocument>,
}

#[derive(Serialize)]
struct MemberDocument {
    node_id: u64,
    address: String,
    voter: bool,
    matched_index: Option<u64>,
    last_contact_ms: Option<f64>,
}

fn print_raft(context: &Context, status: &RaftStatus) -> Result<(), Stop> {
    let members = status.members.iter().map(|member| MemberDocument {
        node_id: member.node.get(),
        address: member.address.clone(),
        voter: member.voter,
        matched_index: member.matched_index,
        last_contact_ms: member.last_contact.map(millis),
    });
    let document = RaftDocument {
        leader_id: status.leader.map(NodeId::get),
        term: status.term,
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        members: members.collect(),
    };
    context.output.result(&document, |out| {
        let leader = status.leader.map_or_else(|| "none".to_owned(), |leader| format!("n{leader}"));
        writeln!(
            out,
            "leader {leader}   term {}   committed {}",
            status.term,
            count(status.committed_index)
        )?;
        let mut rows = table(&["NODE", "ROLE", "MATCHED", "BEHIND", "CONTACT", "ADDRESS"]);
        for member in &status.members {
            let behind = member.matched_index.map(|matched| status.last_log_index.saturating_sub(matched));
            let dash = || "-".to_owned();
            rows.add_row([
                format!("n{}", member.node),
                if member.voter { "voter" } else { "learner" }.to_owned(),
                member.matched_index.map_or_else(dash, count),
                behind.map_or_else(dash, count),
                member.last_contact.map_or_else(dash, |contact| format!("{} ago", units::span(contact))),
                member.address.clone(),
            ]);
        }
        writeln!(out, "{rows}")
    })?;
    Ok(())
}

async fn transfer(context: &Context, admin: &Admin, args: &TransferArgs) -> Result<Exit, Stop> {
    #[derive(Serialize)]
    struct Document {
        leader_id: u64,
    }
    let leader = context.call(admin.transfer_leader(args.id.map(NodeId::new))).await?;
    context.output.result(&Document { leader_id: leader.get() }, |out| writeln!(out, "n{leader} leads"))?;
    Ok(Exit::Done)
}

async fn voters(context: &Context, admin: &Admin, args: &VotersArgs) -> Result<Exit, Stop> {
    #[derive(Serialize)]
    struct Document {
        wanted_voters: u32,
    }
    let now = context.call(admin.health()).await?.wanted_voters;
    // An even number is refused without a question.
    if args.voters % 2 == 1 && args.voters < now {
        let outlived = |voters: u32| voters.saturating_sub(1) / 2;
        let objection = format!(
            "with {} instead of {now} the cluster outlives the loss of {}, not of {}",
            counted(args.voters.into(), "voter"),
            outlived(args.voters),
            outlived(now),
        );
        args.consent.in_spite_of(&objection, &args.voters.to_string())?;
    }
    context.call(admin.set_voters(args.voters)).await?;
    context.output.result(&Document { wanted_voters: args.voters }, |out| {
        writeln!(out, "{} voters are wanted; nodes get the vote as they are there", args.voters)
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct RebalanceDocument {
    moved: bool,
    nodes: Vec<LoadDocument>,
    moves: Vec<MoveDocument>,
}

#[derive(Serialize)]
struct LoadDocument {
    node_id: u64,
    homes_before: u32,
    homes_after: u32,
}

#[derive(Serialize)]
struct MoveDocument {
    topic: String,
    partition: u32,
    from_node: Option<u64>,
    to_node: u64,
}

async fn rebalance(context: &Context, admin: &Admin, args: &RebalanceArgs) -> Result<Exit, Stop> {
    let mode = if args.plan { Mode::ValidateOnly } else { Mode::Apply };
    let Rebalance { nodes, moves, .. } = context.call(admin.rebalance(mode)).await?;
    let document = RebalanceDocument {
        moved: !args.plan && !moves.is_empty(),
        nodes: nodes
            .iter()
            .map(|load| LoadDocument {
                node_id: load.node.get(),
                homes_before: load.homes_before,
                homes_after: load.homes_after,
            })
            .collect(),
        moves: moves
            .iter()
            .map(|moved| MoveDocument {
                topic: moved.topic.clone(),
                partition: moved.partition.get(),
                from_node: moved.from.map(NodeId::get),
                to_node: moved.to.get(),
            })
            .collect(),
    };
    context.output.result(&document, |out| {
        let mut rows = table(&["NODE", "HOMES", "AFTER"]);
        for load in &document.nodes {
            rows.add_row([
                format!("n{}", load.node_id),
                load.homes_before.to_string(),
                load.homes_after.to_string(),
            ]);
        }
        writeln!(out, "{rows}")?;
        let word = if args.plan { "would move" } else { "move" };
        writeln!(out, "{} homes {word}", count(document.moves.len() as u64))
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_names_the_nodes_that_are_wanted_and_the_checks_that_fail() {
        let failed = [("nodes", "1 of 2 do not answer: node 2"), ("voters", "1 of 3 voters answer")];
        let told = "nodes: 1 of 2 do not answer: node 2; voters: 1 of 3 voters answer";
        let few = "2 of the 4 nodes that are wanted take requests";
        assert_eq!(missing(2, Some(4), std::iter::empty()), few);
        assert_eq!(missing(2, None, failed.into_iter()), told);
        assert_eq!(missing(2, Some(4), failed.into_iter()), format!("{few}; {told}"));
        assert_eq!(missing(4, Some(4), failed.into_iter()), told);
    }
}
