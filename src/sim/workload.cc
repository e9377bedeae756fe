#include "sim/workload.h"

#include <algorithm>
#include <cstring>

namespace switchyard::sim {
namespace {

constexpr std::uint64_t kLongestMessage = 4096;

}  // namespace

Workload::Workload(Cluster& cluster, Ledger& ledger, const WorkloadOptions& options)
    : cluster_(cluster),
      network_(cluster.network()),
      ledger_(ledger),
      random_(cluster.network().random().next()),
      options_(options) {}

void Workload::add_node(NodeId node) {
  ledger_.add_node(node);
  if (!cluster_.present(node)) return;
  EngineCore& engine = cluster_.engine(node);
  engine.on_message([this, node](const PeerAddress& from, std::span<const std::byte> message) {
    ledger_.received(node, from, message);
  });
  engine.on_peer_lost([this, node](const PeerAddress& peer, const Error&) { ledger_.peer_lost(node, peer); });
}

void Workload::begin() {
  for (std::uint32_t i = 0; i < options_.operations;) {
    // Alone, or many at the same instant.
    const auto burst =
        std::min<std::uint32_t>(options_.operations - i,
                                random_.chance(0.3) ? static_cast<std::uint32_t>(random_.between(2, 20)) : 1);
    network_.after(random_.duration(Nanos::zero(), options_.duration), [this, burst] {
      for (std::uint32_t j = 0; j < burst; ++j) operate(false);
    });
    i += burst;
  }
}

bool Workload::finished() const {
  return std::all_of(ledger_.ops().begin(), ledger_.ops().end(), [this](const Op& op) {
    return !op.started || op.abandoned ||
           (op.done && (op.ok || op.drained || op.kind == Op::Kind::connect)) || !cluster_.present(op.from);
  });
}

std::string Workload::describe_unfinished() const {
  std::string text;
  int left = 3;
  for (OpId id = 0; id < ledger_.ops().size(); ++id) {
    const Op& op = ledger_.ops()[id];
    if (!op.started || op.abandoned || (op.done && (op.ok || op.drained))) continue;
    if (left-- == 0) return text + "; …";
    text += fmt::format("{}operation {} of node {} to node {}, submitted at {:.3f} ms, {}",
                        text.empty() ? "" : "; ", id, op.from, op.to,
                        to_seconds(op.submitted.time_since_epoch()) * 1e3,
                        op.done ? "has not drained" : "has no Done");
  }
  return text;
}

NodeId Workload::some_living() {
  for (int tries = 0; tries < 32; ++tries) {
    const auto node = static_cast<NodeId>(random_.below(cluster_.nodes()));
    if (cluster_.alive(node)) return node;
  }
  return kNone;
}

NodeId Workload::some_target(NodeId from) {
  if (random_.chance(0.04)) return from;
  for (int tries = 0; tries < 32; ++tries) {
    const auto node = static_cast<NodeId>(random_.below(cluster_.nodes()));
    if (node != from && cluster_.present(node)) return node;
  }
  return from;
}

OpId Workload::make(Op::Kind kind, NodeId from, NodeId to) {
  const auto id = static_cast<OpId>(ledger_.ops().size());
  Op& op = ledger_.ops().emplace_back();
  op.kind = kind;
  op.from = from;
  op.to = to;
  op.submitted = network_.now();
  if (random_.chance(options_.deadlines)) {
    op.deadline = network_.now() + random_.duration(std::chrono::microseconds(5),
                                                    random_.duration(std::chrono::milliseconds(1),
                                                                     std::chrono::milliseconds(600)));
  }
  return id;
}

void Workload::operate(bool from_callback) {
  const NodeId from = stopped_ ? kNone : some_living();
  if (from == kNone) return;
  const std::uint64_t what = random_.below(from_callback ? 90 : 100);
  if (what < 55) return transfer(from);
  if (what < 65) return scatter(from);
  if (what < 75) return signal(from);
  if (what < 88) return message(from);
  if (what < 93) return connect(from);
  if (what < 97) return nonsense(from);
  old_address(from);
}

// ---- counters

CounterNumber Workload::some_counter(NodeId at) {
  if (!cluster_.alive(at)) return kNone;
  auto& counters = ledger_.counters();
  for (int tries = 0; tries < 4 && !counters.empty(); ++tries) {
    const auto number = static_cast<CounterNumber>(random_.below(counters.size()));
    if (counters[number].node == at && counters[number].counter &&
        counters[number].parts.size() < counters[number].planned)
      return number;
  }
  auto counter = cluster_.engine(at).make_counter();
  if (!counter) {
    if (counter.error().code != ErrorCode::exhausted)
      ledger_.violate("no counter: {}", counter.error().message);
    return kNone;
  }
  const auto number = static_cast<CounterNumber>(counters.size());
  counters.push_back(
      {.node = at,
       .counter = *counter,
       .planned = random_.chance(0.5) ? 1 : static_cast<std::uint32_t>(random_.between(2, 8))});
  // Armed at once, later, more than once, or never.
  if (random_.chance(0.4)) arm(number);
  for (int i = 0; i < 2; ++i) {
    network_.after(random_.duration(Nanos::zero(), options_.duration), [this, number] { arm(number); });
  }
  // Some are freed while their writers still write.
  if (random_.chance(0.1)) {
    network_.after(random_.duration(Nanos::zero(), options_.duration), [this, number] {
      CounterState& freed = ledger_.counters()[number];
      if (!freed.counter || !cluster_.alive(freed.node)) return;
      cluster_.engine(freed.node);
      freed.counter = {};
      freed.parts.clear();
    });
  }
  return number;
}

void Workload::arm(CounterNumber number) {
  CounterState& counter = ledger_.counters()[number];
  if (!counter.counter || !cluster_.alive(counter.node)) return;
  if (counter.armed) {
    if (random_.chance(0.2)) {
      cluster_.engine(counter.node);
      counter.withdrawn = true;
      counter.counter.cancel();
    }
    return;
  }
  cluster_.engine(counter.node);
  counter.target = random_.chance(0.7) ? counter.planned : random_.between(1, counter.planned);
  counter.deadline = random_.chance(0.3)
                         ? network_.now() + random_.duration(Nanos(1000), std::chrono::milliseconds(100))
                         : TimePoint::max();
  counter.armed = true;
  counter.withdrawn = false;
  auto armed = counter.counter.expect(counter.target, counter.deadline, [this, number](const Status& status) {
    ledger_.counter_done(number, status);
    if (random_.chance(0.2)) operate(true);
  });
  if (!armed) ledger_.violate("counter {} cannot be armed: {}", number, armed.error().message);
}

void Workload::aim_at(CounterNumber number, PartId part) {
  ledger_.counters()[number].parts.push_back(part);
  ledger_.parts()[part].counter = number;
}

SubmitOptions Workload::options_for(OpId id, NodeId to, PartId part, bool counted) {
  const Op& op = ledger_.ops()[id];
  SubmitOptions options{.deadline = op.deadline,
                        .priority = random_.chance(0.3) ? Priority::latency : Priority::bulk};
  if (!counted) return options;
  const CounterNumber number = some_counter(to);
  if (number == kNone) return options;
  aim_at(number, part);
  options.counter = ledger_.counters()[number].counter.id();
  return options;
}

// ---- what becomes of an operation

Done Workload::done_of(OpId id) {
  return [this, id](const Status& status) {
    ledger_.done(id, status);
    Op& op = ledger_.ops()[id];
    if (op.abandoned) return;
    // What has failed may still land until it has drained; the same call tells when.
    if (!op.ok && op.kind != Op::Kind::connect && op.cancelled_at == TimePoint::max()) cancel(id);
    if (random_.chance(0.1)) operate(true);
  };
}

void Workload::cancel(OpId id) {
  Op& op = ledger_.ops()[id];
  if (!op.started || op.abandoned || !cluster_.present(op.from) || op.cancelled_at != TimePoint::max())
    return;
  op.cancelled_at = network_.now();
  network_.note(Event::cancelled, cluster_.process_of(op.from), id);
  cluster_.engine(op.from);
  // The transfer keeps no engine alive, and the call may call back at once.
  Transfer handle = op.transfer;
  handle.cancel([this, id] { ledger_.drained(id); });
}

// Nothing was sent: what was set aside for it is free again.
void Workload::forget(OpId id) {
  for (const PartId index : ledger_.ops()[id].parts) {
    Part& part = ledger_.parts()[index];
    part.state = Part::State::closed;
    part.closed_at = TimePoint{};
    part.why_closed = "after its submission was refused";
    if (part.counter == kNone) continue;
    auto& parts = ledger_.counters()[part.counter].parts;
    parts.erase(std::remove(parts.begin(), parts.end(), index), parts.end());
  }
}

void Workload::accept(OpId id, Result<Transfer> transfer) {
  Op& op = ledger_.ops()[id];
  if (!transfer) {
    const ErrorCode code = transfer.error().code;
    const bool allowed = code == ErrorCode::exhausted ||
                         (code == ErrorCode::cancelled && !cluster_.alive(op.from)) ||
                         (ledger_.disturbed && (code == ErrorCode::peer_lost || code == ErrorCode::denied));
    if (!allowed)
      ledger_.violate("operation {} of node {} is refused: {}", id, op.from, transfer.error().message);
    return forget(id);
  }
  op.started = true;
  op.transfer = *transfer;
  network_.note(Event::submitted, cluster_.process_of(op.from), id, static_cast<std::uint64_t>(op.kind),
                op.source_bytes);
  if (random_.chance(options_.cancels))
    network_.after(
        random_.duration(Nanos::zero(), random_.duration(Nanos::zero(), std::chrono::milliseconds(5))),
        [this, id] { cancel(id); });
}

// ---- operations

void Workload::transfer(NodeId from) {
  const NodeId to = some_target(from);
  const bool paged = random_.chance(0.5);
  const OpId id = make(paged ? Op::Kind::pages : Op::Kind::write, from, to);
  const bool counted = random_.chance(0.7);
  // One run is a list of one page.
  const std::uint64_t pages = paged ? random_.magnitude(1, 48) : 1;
  const std::uint64_t page = std::max<std::uint64_t>(random_.magnitude(1, options_.largest / pages), 1);
  const std::uint64_t source_stride = page + (random_.chance(0.5) ? 0 : random_.below(64));
  const std::uint64_t target_stride = page + (random_.chance(0.5) ? 0 : random_.below(64));
  const std::uint64_t spare = paged ? random_.below(4) : 0;  // places in the lists that stay unused
  const std::uint64_t source_bytes = (pages + spare) * source_stride,
                      target_bytes = (pages + spare) * target_stride;
  const auto source = ledger_.take_source(id, from, source_bytes);
  const auto part = source ? ledger_.take_target(id, to, target_bytes) : std::nullopt;
  if (!part) return;
  Op& op = ledger_.ops()[id];
  op.parts = {*part};
  op.source_box = *source;
  op.source_bytes = source_bytes;
  auto permutation = [&] {
    std::vector<std::uint32_t> list(pages + spare);
    for (std::uint32_t i = 0; i < list.size(); ++i) list[i] = i;
    if (random_.chance(0.7)) {
      for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[random_.below(i)]);
    }
    list.resize(pages);
    return list;
  };
  auto& memory = ledger_.memory(from);
  PagedWrite write{.source = memory.source_region,
                   .source_offset = *source,
                   .source_stride = source_stride,
                   .source_pages = permutation(),
                   .peer = ledger_.memory(to).address,
                   .target = ledger_.memory(to).key,
                   .target_offset = ledger_.parts()[*part].box,
                   .target_stride = target_stride,
                   .target_pages = permutation(),
                   .page_bytes = page};
  if (!paged) write.source_pages = write.target_pages = {0};
  for (std::size_t i = 0; i < pages; ++i) {
    ledger_.aim(*part, write.target_pages[i] * target_stride,
                std::span(memory.source).subspan(*source + write.source_pages[i] * source_stride, page));
  }
  // A region of its own, which goes at some time; the source's handle goes at once.
  if (cluster_.alive(to) && random_.chance(options_.passing_regions)) {
    auto region = cluster_.engine(to).register_region(
        {ledger_.memory(to).target.data() + ledger_.parts()[*part].box, target_bytes});
    if (!region) return ledger_.violate("no region: {}", region.error().message);
    ledger_.parts()[*part].region_goes = true;
    write.target = region->key();
    write.target_offset = 0;
    network_.after(random_.duration(Nanos::zero(), std::chrono::milliseconds(2)), [kept = *region] {});
  }
  if (random_.chance(0.1)) {
    auto region = cluster_.engine(from).register_region({memory.source.data() + *source, source_bytes});
    if (!region) return ledger_.violate("no region: {}", region.error().message);
    write.source = *region;
    write.source_offset = 0;
  }
  write.options = options_for(id, to, *part, counted);
  EngineCore& engine = cluster_.engine(from);
  if (paged) return accept(id, engine.write_pages(std::move(write), done_of(id)));
  accept(id, engine.write({.source = write.source,
                           .source_offset = write.source_offset,
                           .peer = write.peer,
                           .target = write.target,
                           .target_offset = write.target_offset,
                           .bytes = page,
                           .options = write.options},
                          done_of(id)));
}

void Workload::scatter(NodeId from) {
  std::vector<NodeId> targets;
  for (NodeId node = 0; node < cluster_.nodes(); ++node) {
    if (cluster_.present(node) && random_.chance(0.7)) targets.push_back(node);
  }
  if (targets.empty()) return;
  const OpId id = make(Op::Kind::scatter, from, targets.front());
  const std::uint64_t bytes = random_.magnitude(1, options_.largest / 4);
  const auto source = ledger_.take_source(id, from, bytes * targets.size());
  if (!source) return;
  Op& op = ledger_.ops()[id];
  op.source_box = *source;
  op.source_bytes = bytes * targets.size();
  auto& memory = ledger_.memory(from);
  std::vector<PeerGroup::Member> members;
  Scatter scatter{.source = memory.source_region,
                  .deadline = op.deadline,
                  .priority = random_.chance(0.3) ? Priority::latency : Priority::bulk};
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const std::uint64_t own = random_.chance(0.1) ? 0 : bytes - random_.below(bytes);
    const auto part = ledger_.take_target(id, targets[i], own);
    if (!part) return forget(id);
    ledger_.ops()[id].parts.push_back(*part);
    const auto offset = *source + i * bytes;
    ledger_.aim(*part, 0, std::span(memory.source).subspan(offset, own));
    members.push_back({ledger_.memory(targets[i]).address, ledger_.memory(targets[i]).key});
    scatter.slices.push_back({.source_offset = offset,
                              .target_offset = ledger_.parts()[*part].box,
                              .bytes = own,
                              .counter = options_for(id, targets[i], *part, random_.chance(0.6)).counter});
  }
  scatter.group = PeerGroup(std::move(members));
  accept(id, cluster_.engine(from).scatter(std::move(scatter), done_of(id)));
}

void Workload::signal(NodeId from) {
  const NodeId to = some_target(from);
  const CounterNumber counter = some_counter(to);
  if (counter == kNone) return;
  const OpId id = make(Op::Kind::signal, from, to);
  const auto part = ledger_.take_target(id, to, 0);
  if (!part) return;
  ledger_.ops()[id].parts = {*part};
  aim_at(counter, *part);
  accept(id, cluster_.engine(from).signal({.peer = ledger_.memory(to).address,
                                           .counter = ledger_.counters()[counter].counter.id(),
                                           .deadline = ledger_.ops()[id].deadline},
                                          done_of(id)));
}

void Workload::message(NodeId from) {
  const NodeId to = some_target(from);
  const OpId id = make(Op::Kind::message, from, to);
  Op& op = ledger_.ops()[id];
  op.message.resize(sizeof id + random_.magnitude(0, kLongestMessage - sizeof id));
  for (std::byte& each : op.message) each = static_cast<std::byte>(random_.next());
  std::memcpy(op.message.data(), &id, sizeof id);
  accept(id, cluster_.engine(from).send(ledger_.memory(to).address, op.message, done_of(id), op.deadline));
}

void Workload::connect(NodeId from) {
  const NodeId to = some_target(from);
  const OpId id = make(Op::Kind::connect, from, to);
  ledger_.ops()[id].deadline = TimePoint::max();
  auto status = cluster_.engine(from).connect(ledger_.memory(to).address, done_of(id));
  if (status) {
    ledger_.ops()[id].started = true;
    network_.note(Event::submitted, cluster_.process_of(from), id,
                  static_cast<std::uint64_t>(Op::Kind::connect));
  } else if (status.error().code != ErrorCode::exhausted && !ledger_.disturbed) {
    ledger_.violate("node {} cannot connect: {}", from, status.error().message);
  }
}

// Has to be refused, and no Done may come.
void Workload::nonsense(NodeId from) {
  const NodeId to = some_target(from);
  auto& memory = ledger_.memory(from);
  Write write{.source = memory.source_region,
              .peer = ledger_.memory(to).address,
              .target = ledger_.memory(to).key,
              .bytes = random_.between(1, 4096)};
  ErrorCode expected = ErrorCode::out_of_range;
  switch (random_.below(4)) {
    case 0:
      write.target_offset = Ledger::kMemoryBytes - write.bytes + 1;
      break;
    case 1:
      write.source_offset = ~std::uint64_t{0} - random_.below(4096);
      break;
    case 2:
      write.target_offset = ~std::uint64_t{0} - write.bytes / 2;
      break;
    default:
      write.target.epoch ^= 1;
      expected = ErrorCode::denied;
  }
  auto result = cluster_.engine(from).write(std::move(write), [this](const Status&) {
    ledger_.violate("T7: a write that was refused has a Done");
  });
  if (result || result.error().code != expected) {
    ledger_.violate("T7: a write that makes no sense is answered with '{}'",
                    result ? "ok" : result.error().message);
  }
}

// To a node that is gone: ends with an error, in time.
void Workload::old_address(NodeId from) {
  for (NodeId to = 0; to < cluster_.nodes(); ++to) {
    if (cluster_.present(to)) continue;
    const OpId id = make(Op::Kind::signal, from, to);
    const auto part = ledger_.take_target(id, to, 0);
    if (!part) return;
    ledger_.ops()[id].parts = {*part};
    auto& memory = ledger_.memory(to);
    accept(id, cluster_.engine(from).signal({.peer = memory.address,
                                             .counter = {0, 0, memory.address.epoch},
                                             .deadline = ledger_.ops()[id].deadline},
                                            done_of(id)));
    return;
  }
}

}  // namespace switchyard::sim
