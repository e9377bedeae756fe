#include "sim/ledger.h"

#include <algorithm>
#include <cstring>

namespace switchyard::sim {
namespace {

constexpr Nanos kSlack = std::chrono::milliseconds(25);  // a worker's naps, and some

const char* name_of(Op::Kind kind) {
  switch (kind) {
    case Op::Kind::write:
      return "write";
    case Op::Kind::pages:
      return "paged write";
    case Op::Kind::scatter:
      return "scatter";
    case Op::Kind::signal:
      return "signal";
    case Op::Kind::message:
      return "message";
    case Op::Kind::connect:
      return "connect";
  }
  return "";
}

void fill(std::span<std::byte> bytes, std::uint64_t seed) {
  Random random(seed);
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t word = random.next();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  for (; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random.next());
}

std::uint64_t granules(std::uint64_t bytes) {
  return std::max<std::uint64_t>((bytes + Ledger::kGranule - 1) / Ledger::kGranule, 1);
}

}  // namespace

void Ledger::add_node(NodeId node) {
  auto memory = std::make_unique<Memory>();
  memory->target.resize(kMemoryBytes);
  memory->source.resize(kMemoryBytes);
  memory->target_owner.resize(kMemoryBytes / kGranule);
  memory->source_owner.resize(kMemoryBytes / kGranule);
  if (cluster_.present(node)) {
    EngineCore& engine = cluster_.engine(node);
    auto target = engine.register_region({memory->target.data(), memory->target.size()});
    auto source = engine.register_region({memory->source.data(), memory->source.size()});
    if (!target || !source) return violate("node {}: memory is not registered", node);
    memory->target_region = *target;
    memory->source_region = *source;
    memory->key = target->key();
    memory->address = engine.address();
  }
  memories_.push_back(std::move(memory));
}

bool Ledger::free_at(const Memory& memory, std::uint64_t granule) const {
  const PartId owner = memory.target_owner[granule];
  // What has closed just now may be judged anew by what follows at the same instant.
  return owner == 0 ||
         (parts_[owner - 1].state == Part::State::closed && parts_[owner - 1].closed_at < network_.now());
}

std::optional<PartId> Ledger::take_target(OpId op, NodeId node, std::uint64_t bytes) {
  Memory& own = memory(node);
  const std::uint64_t count = granules(bytes), all = own.target_owner.size();
  const std::uint64_t start = network_.random().below(all - count + 1);
  std::uint64_t run = 0;
  for (std::uint64_t i = start; i < all; ++i) {
    run = free_at(own, i) ? run + 1 : 0;
    if (run < count) continue;
    const auto id = static_cast<PartId>(parts_.size());
    Part& part = parts_.emplace_back();
    part.op = op;
    part.to = node;
    part.box = (i + 1 - count) * kGranule;
    std::fill_n(own.target_owner.begin() + static_cast<std::ptrdiff_t>(i + 1 - count), count, id + 1);
    const auto box = std::span(own.target).subspan(part.box, bytes);
    fill(box, id * 2 + 1);
    part.expected.assign(box.begin(), box.end());
    part.written.assign(bytes, 0);
    return id;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Ledger::take_source(OpId op, NodeId node, std::uint64_t bytes) {
  Memory& own = memory(node);
  const std::uint64_t count = granules(bytes), all = own.source_owner.size();
  const std::uint64_t start = network_.random().below(all - count + 1);
  std::uint64_t run = 0;
  for (std::uint64_t i = start; i < all; ++i) {
    const OpId owner = own.source_owner[i];
    const bool free =
        owner == 0 ||
        (owner != op + 1 && (ops_[owner - 1].ok || ops_[owner - 1].drained || !ops_[owner - 1].started));
    run = free ? run + 1 : 0;
    if (run < count) continue;
    const std::uint64_t box = (i + 1 - count) * kGranule;
    std::fill_n(own.source_owner.begin() + static_cast<std::ptrdiff_t>(i + 1 - count), count, op + 1);
    fill(std::span(own.source).subspan(box, bytes), op * 2);
    return box;
  }
  return std::nullopt;
}

void Ledger::aim(PartId id, std::uint64_t offset, std::span<const std::byte> source) {
  Part& part = parts_[id];
  std::copy(source.begin(), source.end(), part.expected.begin() + static_cast<std::ptrdiff_t>(offset));
  std::fill_n(part.written.begin() + static_cast<std::ptrdiff_t>(offset), source.size(), 1);
}

void Ledger::landed(ProcessId from, ProcessId to, const std::byte* at, std::size_t bytes) {
  const auto node = cluster_.node_of(to);
  if (!node || *node >= memories_.size()) return;
  const Memory& own = memory(*node);
  if (at >= own.source.data() && at < own.source.data() + own.source.size())
    return violate("bytes of process {} land in the source memory of node {}", from, *node);
  if (at < own.target.data() || at >= own.target.data() + own.target.size())
    return;  // the engine's own memory
  const auto offset = static_cast<std::uint64_t>(at - own.target.data());
  const PartId owner = own.target_owner[offset / kGranule];
  if (owner == 0)
    return violate("{} bytes of process {} land at {} of node {}, where nothing is aimed", bytes, from,
                   offset, *node);
  const Part& part = parts_[owner - 1];
  const Op& op = ops_[part.op];
  if (part.state == Part::State::closed) {
    return violate("T5: {} bytes of operation {} ({}) of node {} land at {} of node {} {}", bytes, part.op,
                   name_of(op.kind), op.from, offset, *node, part.why_closed);
  }
  const std::uint64_t begin = offset - part.box;
  if (cluster_.process_of(op.from) != from || begin + bytes > part.expected.size() ||
      std::memcmp(part.expected.data() + begin, at, bytes) != 0 ||
      std::memchr(part.written.data() + begin, 0, bytes) != nullptr) {
    return violate(
        "{} bytes of process {} land at {} of node {}, in the box of operation {} ({}) of node {}, to which "
        "they do "
        "not belong",
        bytes, from, offset, *node, part.op, name_of(op.kind), op.from);
  }
}

bool Ledger::is_complete(Part& part) {
  if (part.complete) return true;
  const Memory& own = memory(part.to);
  part.complete = part.expected.empty() ||
                  std::memcmp(own.target.data() + part.box, part.expected.data(), part.expected.size()) == 0;
  return part.complete;
}

void Ledger::close(Part& part, const char* why) {
  if (part.state == Part::State::closed) return;
  is_complete(part);  // while the box is still its own
  part.state = Part::State::closed;
  part.closed_at = network_.now();
  part.why_closed = why;
}

void Ledger::judge_error(const Op& op, OpId id, const Error& error) {
  const bool region_goes =
      std::any_of(op.parts.begin(), op.parts.end(), [&](PartId part) { return parts_[part].region_goes; });
  bool allowed = false;
  switch (error.code) {
    case ErrorCode::cancelled:
      allowed = op.cancelled_at <= network_.now() || !cluster_.alive(op.from);
      break;
    case ErrorCode::timed_out:
      allowed = op.deadline <= network_.now();
      break;
    case ErrorCode::io:
      allowed = region_goes || disturbed;
      break;
    case ErrorCode::peer_lost:
      allowed = disturbed;
      break;
    case ErrorCode::denied:
      allowed = disturbed;
      break;
    default:
      break;
  }
  if (!allowed) {
    violate("operation {} ({}) of node {} ends with '{}: {}' for no reason", id, name_of(op.kind), op.from,
            to_string(error.code), error.message);
  }
}

void Ledger::done(OpId id, const Status& status) {
  Op& op = ops_[id];
  network_.note(Event::done, cluster_.process_of(op.from), id,
                status ? 0 : static_cast<std::uint64_t>(status.error().code) + 1);
  if (op.abandoned) return;
  if (op.done)
    return violate("operation {} ({}) of node {} has a second Done", id, name_of(op.kind), op.from);
  op.done = true;
  op.ok = status.has_value();
  const TimePoint limit = std::max(op.deadline, cluster_.paused_until(op.from));
  if (limit != TimePoint::max() && limit < TimePoint::max() - kSlack && network_.now() > limit + kSlack) {
    violate("T10: operation {} ({}) of node {} ends {:.3f} ms after its deadline", id, name_of(op.kind),
            op.from, to_seconds(network_.now() - op.deadline) * 1e3);
  }
  if (!op.ok) {
    op.error = status.error().code;
    return judge_error(op, id, status.error());
  }
  for (const PartId index : op.parts) {
    Part& part = parts_[index];
    if (!is_complete(part))
      violate("operation {} ({}) of node {} is done, and its bytes are not at node {}", id, name_of(op.kind),
              op.from, part.to);
    close(part, "after its Done");
  }
  if (op.kind == Op::Kind::message && op.received != 1)
    violate("message {} of node {} is done and was received {} times", id, op.from, op.received);
}

void Ledger::drained(OpId id) {
  Op& op = ops_[id];
  network_.note(Event::drained, cluster_.process_of(op.from), id);
  if (op.abandoned) return;
  if (op.drained)
    return violate("operation {} ({}) of node {} is drained a second time", id, name_of(op.kind), op.from);
  op.drained = true;
  if (!op.done)
    return violate("operation {} ({}) of node {} is drained before its Done", id, name_of(op.kind), op.from);
  for (const PartId index : op.parts) {
    Part& part = parts_[index];
    // An engine that closes does not wait for its peers: until they notice, it is as if it had died.
    const bool receiver_may_not_know =
        (!op.ok && op.error == ErrorCode::peer_lost) || !cluster_.alive(op.from);
    if (part.state == Part::State::open && (receiver_may_not_know || part.peer_lost)) {
      part.state = Part::State::limbo;
    } else if (part.state == Part::State::open) {
      close(part, "after it was drained");
    }
  }
}

void Ledger::received(NodeId at, const PeerAddress& from, std::span<const std::byte> message) {
  OpId id = 0;
  if (message.size() < sizeof id)
    return violate("node {} receives a message of {} bytes that nobody sent", at, message.size());
  std::memcpy(&id, message.data(), sizeof id);
  if (id >= ops_.size() || ops_[id].kind != Op::Kind::message || ops_[id].to != at ||
      memory(ops_[id].from).address.engine_id != from.engine_id ||
      ops_[id].message.size() != message.size() ||
      !std::equal(message.begin(), message.end(), ops_[id].message.begin())) {
    return violate("node {} receives a message that nobody sent to it", at);
  }
  if (++ops_[id].received > 1) violate("message {} of node {} is received twice", id, ops_[id].from);
}

void Ledger::peer_lost(NodeId at, const PeerAddress& peer) {
  NodeId other = 0;
  while (other < memories_.size() && !(memory(other).address == peer)) ++other;
  if (other == memories_.size()) return violate("node {} loses a peer that never was", at);
  network_.note(Event::peer_lost, cluster_.process_of(at), cluster_.process_of(other));
  if (!disturbed) violate("node {} loses node {} for no reason", at, other);
  lost_.emplace(at, other);
  for (Part& part : parts_) {
    const Op& op = ops_[part.op];
    // What others sent: from now on nothing lands.
    if (part.to == at && op.from == other && part.state == Part::State::limbo)
      close(part, "after its receiver has lost its sender");
    // What we sent: has ended, though the other side may not know yet.
    if (op.from != at || part.to != other || op.abandoned) continue;
    part.peer_lost = !op.done;
    if (op.done && !op.ok &&
        (part.state == Part::State::open ||
         (part.state == Part::State::closed && part.closed_at == network_.now() && op.drained))) {
      part.state = Part::State::limbo;
    }
  }
  for (OpId id = 0; id < ops_.size(); ++id) {
    const Op& op = ops_[id];
    if (op.from != at || op.to != other || !op.started || op.done || op.abandoned ||
        op.kind == Op::Kind::scatter)
      continue;
    if (op.submitted < network_.now())
      violate("operation {} ({}) of node {} has not ended when node {} is reported lost", id,
              name_of(op.kind), at, other);
  }
}

void Ledger::node_gone(NodeId node) {
  for (Op& op : ops_) {
    if (op.from != node || op.abandoned) continue;
    op.abandoned = true;
    for (const PartId part : op.parts) {
      if (parts_[part].state == Part::State::open) parts_[part].state = Part::State::limbo;
    }
  }
  for (Part& part : parts_) {
    if (part.to == node) close(part, "after its node has gone");
  }
  for (CounterState& counter : counters_) {
    if (counter.node == node) {
      counter.counter = {};
      counter.armed = false;
    }
  }
  Memory& own = memory(node);
  own.target_region = own.source_region = {};
}

// ---- counters

std::uint64_t Ledger::complete_parts(const CounterState& counter) {
  std::uint64_t count = 0;
  for (const PartId part : counter.parts) count += is_complete(parts_[part]);
  return count;
}

void Ledger::look_at_counters(NodeId node) {
  for (CounterNumber i = 0; i < counters_.size(); ++i) {
    CounterState& counter = counters_[i];
    if (counter.node != node || !counter.counter) continue;
    const std::uint64_t arrived = counter.counter.arrived();
    if (arrived == counter.seen) continue;
    if (arrived < counter.seen)
      violate("counter {} of node {} goes from {} to {}", i, node, counter.seen, arrived);
    counter.seen = arrived;
    network_.note(Event::counted, cluster_.process_of(node), i, arrived);
    const std::uint64_t complete = complete_parts(counter);
    if (arrived > complete) {
      violate(
          "T2: counter {} of node {} has counted {} transfers, and the bytes of {} are there (of {} aimed at "
          "it)",
          i, node, arrived, complete, counter.parts.size());
    }
    // All that will ever be aimed at it: their memory is the receiver's again.
    if (arrived == counter.planned && counter.parts.size() == counter.planned) {
      for (const PartId part : counter.parts) close(parts_[part], "after it was counted");
    }
  }
}

void Ledger::counter_done(CounterNumber number, const Status& status) {
  CounterState& counter = counters_[number];
  if (!counter.counter) {
    // It may have been reached just before.
    counter.armed = false;
    return;
  }
  if (!counter.armed)
    return violate("the expectation of counter {} of node {} has a second Done", number, counter.node);
  counter.armed = false;
  const std::uint64_t complete = complete_parts(counter);
  if (status) {
    if (complete < counter.target || counter.counter.arrived() < counter.target) {
      violate("T2: counter {} of node {} has reached {}, and the bytes of {} transfers are there", number,
              counter.node, counter.target, complete);
    }
  } else if (status.error().code == ErrorCode::timed_out) {
    if (network_.now() < counter.deadline)
      violate("counter {} of node {} times out early", number, counter.node);
  } else if (status.error().code != ErrorCode::cancelled ||
             (cluster_.alive(counter.node) && !counter.withdrawn)) {
    violate("counter {} of node {} ends with '{}'", number, counter.node, status.error().message);
  }
}

void Ledger::look_at_all_counters_at_the_end() {
  for (CounterNumber i = 0; i < counters_.size(); ++i) {
    CounterState& counter = counters_[i];
    if (!counter.counter || !cluster_.alive(counter.node)) continue;
    std::uint64_t sure = 0;
    // Once it has lost a peer, what that one sends before it notices as well does not count here.
    for (const PartId part : counter.parts) {
      const Op& op = ops_[parts_[part].op];
      sure += op.ok && !lost_.contains({counter.node, op.from});
    }
    const std::uint64_t arrived = counter.counter.arrived();
    if (arrived < sure || arrived > complete_parts(counter)) {
      violate(
          "T3: counter {} of node {} has counted {} transfers at the end; {} are done, the bytes of {} are "
          "there",
          i, counter.node, arrived, sure, complete_parts(counter));
    }
    if (counter.armed && arrived >= counter.target)
      violate("T4: counter {} of node {} has counted {} and not told so", i, counter.node, arrived);
  }
}

}  // namespace switchyard::sim
