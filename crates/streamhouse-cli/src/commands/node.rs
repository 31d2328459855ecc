//! `streamhouse node …`.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;
use streamhouse_client::{Admin, Mode, NodeInfo, StreamHouse};
use streamhouse_doctor::obstacle;
use streamhouse_types::NodeId;

use crate::consent::Consent;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use crate::output::{Stdout, millis, table};
use streamhouse_units::{self as units, count};

/// How often a command that waits looks again.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);
/// Longest wait of `--wait` when `--timeout` says nothing.
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes of the cluster
    #[command(after_help = "Examples:\n  streamhouse node list\n  streamhouse node list -o json")]
    List,
    /// Show a node and the partitions that it is the home of
    #[command(after_help = "Example:\n  streamhouse node describe 2")]
    Describe(NodeArgs),
    /// Take the homes of a node away; it goes on to answer until it is stopped
    #[command(
        after_help = "Examples:\n  streamhouse node drain 2\n  streamhouse node drain 2 --wait\n  streamhouse node drain 2 --dry-run"
    )]
    Drain(DrainArgs),
    /// End a drain: the node may be given homes again
    #[command(after_help = "Example:\n  streamhouse node undrain 2")]
    Undrain(UndrainArgs),
    /// Take a node out of the cluster for ever; its id is never used again
    #[command(
        after_help = "Examples:\n  streamhouse node remove 4 --plan\n  streamhouse node remove 4 --yes"
    )]
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Number of the node
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Return when the node has no homes left, within --timeout or a minute
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UndrainArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Tell what would move and who would vote, change nothing
    #[arg(long, alias = "dry-run")]
    plan: bool,
    #[command(flatten)]
    consent: Consent,
}

/// A node as JSON.
#[derive(Debug, Serialize)]
pub(super) struct NodeDocument {
    id: u64,
    state: &'static str,
    role: String,
    zone: String,
    version: String,
    incarnation: u64,
    grpc_address: String,
    internal_address: String,
    voter: bool,
    leader: bool,
    homes: u32,
    last_heard_ms: Option<f64>,
    applied_index: u64,
    feature_level_max: u32,
}

impl From<&NodeInfo> for NodeDocument {
    fn from(node: &NodeInfo) -> Self {
        Self {
            id: node.id.get(),
            state: node.state.as_str(),
            role: node.role.clone(),
            zone: node.zone.clone(),
            version: node.version.clone(),
            incarnation: node.incarnation,
            grpc_address: node.grpc_address.clone(),
            internal_address: node.internal_address.clone(),
            voter: node.voter,
            leader: node.leader,
            homes: node.homes,
            last_heard_ms: node.last_heard.map(millis),
            applied_index: node.applied_index,
            feature_level_max: node.feature_level_max,
        }
    }
}

#[derive(Serialize)]
struct NodesDocument {
    nodes: Vec<NodeDocument>,
}

#[derive(Serialize)]
struct DescriptionDocument {
    node: NodeDocument,
    homes: Vec<HomeDocument>,
}

#[derive(Serialize)]
struct HomeDocument {
    topic: String,
    partition: u32,
    epoch: u32,
}

/// What a drain would do.
#[derive(Serialize)]
struct DrainPlan {
    node: NodeDocument,
    homes_by_node: BTreeMap<u64, u64>,
    successor: Option<u64>,
    against: Option<String>,
}

#[derive(Serialize)]
struct RemovalDocument {
    node_id: u64,
    removed: bool,
    homes_to_move: u32,
    voters: Vec<u64>,
    keeps_vote: bool,
}

pub(crate) async fn run(command: NodeCommand, context: &Context) -> Result<Exit, Stop> {
    let house = context.connect().await?;
    let admin = house.admin();
    match command {
        NodeCommand::List => list(context, &admin).await,
        NodeCommand::Describe(args) => describe(context, &admin, &args).await,
        NodeCommand::Drain(args) if args.dry_run => plan_drain(context, &house, &args).await,
        NodeCommand::Drain(args) => drain(context, &admin, &args).await,
        NodeCommand::Undrain(args) => undrain(context, &admin, &args).await,
        NodeCommand::Remove(args) => remove(context, &admin, &args).await,
    }
}

async fn list(context: &Context, admin: &Admin) -> Result<Exit, Stop> {
    let nodes = context.call(admin.nodes()).await?;
    let document = NodesDocument { nodes: nodes.iter().map(NodeDocument::from).collect() };
    context.output.result(&document, |out| {
        let mut rows = table(&["NODE", "STATE", "ROLE", "ZONE", "HOMES", "RAFT", "GRPC", "VERSION", "HEARD"]);
        for node in &nodes {
            rows.add_row([
                format!("n{}", node.id),
                node.state.as_str().to_owned(),
                node.role.clone(),
                if node.zone.is_empty() { "-".to_owned() } else { node.zone.clone() },
                count(node.homes.into()),
                raft_word(node).to_owned(),
                node.grpc_address.clone(),
                node.version.clone(),
                node.last_heard.map_or_else(|| "-".to_owned(), |heard| format!("{} ago", units::span(heard))),
            ]);
        }
        writeln!(out, "{rows}")
    })?;
    Ok(Exit::Done)
}

fn raft_word(node: &NodeInfo) -> &'static str {
    match (node.leader, node.voter, node.role == "reader") {
        (true, ..) => "leader",
        (_, true, _) => "voter",
        (.., reads_only) => ["learner", "-"][usize::from(reads_only)],
    }
}

async fn describe(context: &Context, admin: &Admin, args: &NodeArgs) -> Result<Exit, Stop> {
    let found = context.call(admin.node(NodeId::new(args.id))).await?;
    let homes = found.homes.iter().map(|home| HomeDocument {
        topic: home.topic.clone(),
        partition: home.partition.get(),
        epoch: home.epoch.get(),
    });
    let document = DescriptionDocument { node: (&found.node).into(), homes: homes.collect() };
    context.output.result(&document, |out| {
        summary(&found.node, out)?;
        let mut rows = table(&["TOPIC", "PART", "EPOCH"]);
        for home in &document.homes {
            rows.add_row([home.topic.clone(), home.partition.to_string(), home.epoch.to_string()]);
        }
        if document.homes.is_empty() { writeln!(out, "no homes") } else { writeln!(out, "{rows}") }
    })?;
    Ok(Exit::Done)
}

fn summary(node: &NodeInfo, out: &mut Stdout) -> std::io::Result<()> {
    let zone = if node.zone.is_empty() { String::new() } else { format!("   zone {}", node.zone) };
    let (state, raft) = (node.state.as_str(), raft_word(node));
    writeln!(out, "n{}   {state}   {raft}   {}   version {}{zone}", node.id, node.role, node.version)?;
    if node.role == "reader" {
        return writeln!(out, "grpc {}   applied {}", node.grpc_address, node.applied_index);
    }
    writeln!(out, "grpc {}   internal {}", node.grpc_address, node.internal_address)?;
    writeln!(out, "homes {}   incarnation {}   applied {}", node.homes, node.incarnation, node.applied_index)
}

/// Tells what a drain would move, and what stands against it; a drain that would be refused is refused here as well.
async fn plan_drain(context: &Context, house: &StreamHouse, args: &DrainArgs) -> Result<Exit, Stop> {
    let id = NodeId::new(args.node.id);
    let plan = context.call(house.admin().drain_node(id, Mode::ValidateOnly)).await?;
    let against = context.or_interrupt(obstacle(house)).await?.map(|obstacle| obstacle.what);
    let mut homes_by_node = BTreeMap::<u64, u64>::new();
    plan.moves.iter().for_each(|moved| *homes_by_node.entry(moved.to.get()).or_default() += 1);
    let successor = plan.successor.map(NodeId::get);
    let document = DrainPlan { node: (&plan.node).into(), homes_by_node, successor, against };
    context.output.result(&document, |out| {
        summary(&plan.node, out)?;
        let to: Vec<String> =
            document.homes_by_node.iter().map(|(node, homes)| format!("{homes} to n{node}")).collect();
        let to = if to.is_empty() { "no home would move".to_owned() } else { to.join(", ") };
        let leads = match (plan.node.leader, successor) {
            (true, Some(node)) => format!("n{node} would lead"),
            (true, None) => "it would go on to lead: no other voter can".to_owned(),
            (false, _) => "it does not lead".to_owned(),
        };
        let vote = if plan.node.voter { "keeps its vote and " } else { "" };
        writeln!(
            out,
            "homes       {to}\nleadership  {leads}\nafterwards  it {vote}answers until it is stopped"
        )?;
        let against = document.against.as_deref().unwrap_or("nothing");
        writeln!(out, "against it  {against}\nnothing was changed: leave out --dry-run to drain it")
    })?;
    Ok(Exit::Done)
}

async fn drain(context: &Context, admin: &Admin, args: &DrainArgs) -> Result<Exit, Stop> {
    let mut node = context.call(admin.drain_node(NodeId::new(args.node.id), Mode::Apply)).await?.node;
    if args.wait {
        node = wait_drained(context, admin, node).await?;
    }
    print_node(context, &node)
}

async fn wait_drained(context: &Context, admin: &Admin, mut node: NodeInfo) -> Result<NodeInfo, Stop> {
    let deadline = context.env.clock.now() + context.timeout.unwrap_or(WAIT);
    while node.homes > 0 {
        if context.env.clock.now() >= deadline {
            let text = format!("node {} still has {} homes", node.id, node.homes);
            return Err(Failure::of_code(streamhouse_types::error_code::ErrorCode::TimedOut, text)
                .hint("the drain goes on; see `streamhouse node list`")
                .into());
        }
        context.env.clock.sleep(LOOK).await;
        node = context.call(admin.node(node.id)).await?.node;
    }
    Ok(node)
}

async fn undrain(context: &Context, admin: &Admin, args: &UndrainArgs) -> Result<Exit, Stop> {
    let mode = if args.dry_run { Mode::ValidateOnly } else { Mode::Apply };
    let node = context.call(admin.undrain_node(NodeId::new(args.node.id), mode)).await?;
    print_node(context, &node)
}

fn print_node(context: &Context, node: &NodeInfo) -> Result<Exit, Stop> {
    #[derive(Serialize)]
    struct Document {
        node: NodeDocument,
    }
    context.output.result(&Document { node: node.into() }, |out| summary(node, out))?;
    Ok(Exit::Done)
}

async fn remove(context: &Context, admin: &Admin, args: &RemoveArgs) -> Result<Exit, Stop> {
    let id = NodeId::new(args.node.id);
    let plan = context.call(admin.remove_node(id, Mode::ValidateOnly)).await?;
    let document = RemovalDocument {
        node_id: id.get(),
        removed: !args.plan,
        homes_to_move: plan.homes_to_move,
        voters: plan.voters.iter().map(|voter| voter.get()).collect(),
        keeps_vote: plan.voters.contains(&id),
    };
    if !args.plan {
        args.consent.in_spite_of(&document.objection(), &id.to_string())?;
        context.call(admin.remove_node(id, Mode::Apply)).await?;
    }
    context.output.result(&document, |out| writeln!(out, "{}", document.text()))?;
    Ok(Exit::Done)
}

impl RemovalDocument {
    /// What a person has to know of the vote, when it stays where it is.
    fn kept_vote(&self) -> Option<String> {
        let text = format!(
            "no other node can take over the vote of node {}: it keeps it until another node joins, and until then the \
             loss of one more node stops all changes and writes",
            self.node_id
        );
        self.keeps_vote.then_some(text)
    }

    /// What is said against the removal.
    fn objection(&self) -> String {
        let text = format!("taking node {} out of the cluster cannot be undone", self.node_id);
        self.kept_vote().map_or(text.clone(), |kept| format!("{text}; {kept}"))
    }

    /// What was done, or would be.
    fn text(&self) -> String {
        let done = if self.removed { "removed" } else { "would be removed" };
        let voters: Vec<String> = self.voters.iter().map(|voter| format!("n{voter}")).collect();
        let homes = count(self.homes_to_move.into());
        let (id, voters) = (self.node_id, voters.join(", "));
        let text = format!("node {id} {done}; {homes} homes move, the voters are then {voters}");
        self.kept_vote().map_or(text.clone(), |kept| format!("{text}\n{kept}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_removal_of_a_node_whose_vote_nobody_can_take_says_so_before_and_after() {
        let mut document = RemovalDocument {
            node_id: 4,
            removed: false,
            homes_to_move: 2,
            voters: vec![2, 3, 4],
            keeps_vote: true,
        };
        for text in [document.objection(), document.text()] {
            assert!(text.contains("it keeps it until another node joins"), "{text}");
            assert!(text.contains("the loss of one more node stops all changes and writes"), "{text}");
        }
        (document.removed, document.voters, document.keeps_vote) = (true, vec![1, 2, 3], false);
        assert_eq!(document.text(), "node 4 removed; 2 homes move, the voters are then n1, n2, n3");
        assert_eq!(document.objection(), "taking node 4 out of the cluster cannot be undone");
    }
}
