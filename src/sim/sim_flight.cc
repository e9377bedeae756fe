// The way of a write through the network: in pieces, past ports that are down, into the target's memory, and
// back.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "sim/sim_fabric.h"

namespace switchyard::sim {

using fabric::Completion;

namespace {

constexpr std::uint64_t kMaxPieces = 64;  // of one write

Nanos nanos(double seconds) { return Nanos(static_cast<Nanos::rep>(seconds * 1e9 + 0.5)); }

}  // namespace

SimFabric& SimFabric::target_of(const Write& write) {
  return *network_.fabrics[network_.ends[write.to_end].fabric];
}

bool SimFabric::has_route(const Write& write) {
  return own_port().options.subnet == target_of(write).own_port().options.subnet;
}

bool SimFabric::path_is_up(const Write& write) {
  SimFabric& target = target_of(write);
  return own_port().up && target.own_port().up &&
         network_.joined(network_.process(process_).host, network_.process(target.process_).host);
}

TimePoint SimFabric::down_since(const Write& write) {
  return std::max(own_port().down_since, target_of(write).own_port().down_since);
}

std::uint64_t SimFabric::bytes_of(const Write& write, std::uint32_t piece) const {
  return std::min(write.piece_bytes,
                  write.request.bytes - std::min(write.request.bytes, offset_of(write, piece)));
}

template <void (SimFabric::*What)(std::uint32_t, std::uint32_t)>
void SimFabric::schedule(std::uint32_t index, std::uint32_t piece, TimePoint when) {
  ++writes_[index].events;
  network_.at(when, [this, index, piece] {
    (this->*What)(index, piece);
    --writes_[index].events;
    release(index);
  });
}

void SimFabric::transmit(std::uint32_t index) {
  Write& write = writes_[index];
  Network::End& end = end_of(write);
  if (end.broken) {
    if (end.hung) {
      write.mode = Mode::hangs;
    } else {
      fail_later(index, network_.random().duration(Nanos(500), std::chrono::microseconds(20)));
    }
    write.aborted = true;
    return;
  }
  Port& port = own_port();
  const std::uint64_t bytes = write.request.bytes;
  write.piece_bytes = std::max({port.options.mtu, (bytes + kMaxPieces - 1) / kMaxPieces, std::uint64_t{1}});
  write.remaining = static_cast<std::uint32_t>(
      std::max<std::uint64_t>(1, (bytes + write.piece_bytes - 1) / write.piece_bytes));
  port.sent = std::max(port.sent, network_.now()) + port.options.per_write;
  for (std::uint32_t piece = 0; piece < write.remaining; ++piece) {
    port.sent += nanos(static_cast<double>(bytes_of(write, piece)) * port.seconds_per_byte());
    schedule<&SimFabric::arrive>(index, piece, port.sent + port.options.latency);
  }
}

void SimFabric::arrive(std::uint32_t index, std::uint32_t piece) {
  Write& write = writes_[index];
  if (write.aborted || !has_route(write)) return drop(index, piece);
  Network::End& end = end_of(write);
  if (capabilities_.ordered) {
    if (end.broken) return drop(index, piece);
    if (end.stalled) {
      ++write.events;
      end.waiting.emplace_back(index, piece);
      return;
    }
  }
  if (!path_is_up(write)) return meet_fault(index, piece);
  receive(index, piece);
}

void SimFabric::meet_fault(std::uint32_t index, std::uint32_t piece) {
  Write& write = writes_[index];
  Random& random = network_.random();
  const FaultModel& faults = network_.faults;
  if (capabilities_.ordered) {
    Network::End& end = end_of(write);
    if (end.removed || random.chance(1 - faults.retries)) {
      end.hung = random.chance(faults.hangs);
      drop(index, piece);
      break_path(write.from_end, kNone);
      return;
    }
    end.stalled = true;
    end.retry_until = network_.now() + random.duration(faults.retry_low, faults.retry_high);
    ++write.events;
    end.waiting.emplace_back(index, piece);
    network_.after(random.duration(std::chrono::microseconds(200), std::chrono::milliseconds(10)),
                   [this, id = write.from_end] { resume(id); });
    return;
  }
  const bool was_sent = write.posted < down_since(write);
  if (write.mode == Mode::whole) {
    network_.note(Event::write_broken, id_, write.serial);
    const bool silent = random.chance(faults.hangs);
    if (random.chance(faults.retries)) {
      write.mode = Mode::retries;
      write.retry_until = network_.now() + random.duration(faults.retry_low, faults.retry_high);
    } else if (was_sent && random.chance(faults.ack_lost)) {
      write.mode = silent ? Mode::ack_lost_hangs : Mode::ack_lost_fails;
    } else {
      write.mode = silent ? Mode::hangs : Mode::fails;
    }
    if (write.mode == Mode::ack_lost_fails || write.mode == Mode::fails)
      fail_later(index, random.duration(faults.retry_low, faults.retry_high));
  }
  if (write.mode == Mode::retries) {
    if (network_.now() < write.retry_until) {
      return schedule<&SimFabric::arrive>(
          index, piece,
          network_.now() + random.duration(std::chrono::microseconds(200), std::chrono::milliseconds(10)));
    }
    write.mode = Mode::fails;
    fail_later(index, Nanos::zero());
  }
  const bool all_land = write.mode == Mode::ack_lost_fails || write.mode == Mode::ack_lost_hangs;
  if (random.chance(faults.late)) {
    const Nanos delay = random.duration(Nanos::zero(), random.duration(Nanos::zero(), faults.late_high));
    return schedule<&SimFabric::arrive>(index, piece, network_.now() + delay);
  }
  if (was_sent && (all_land || random.chance(0.5))) return receive(index, piece);
  drop(index, piece);
}

// On a path with order: sends again, or gives up.
void SimFabric::resume(std::uint64_t id) {
  Network::End& end = network_.ends[id];
  if (!end.stalled || end.broken) return;
  const auto waiting = std::exchange(end.waiting, {});
  if (waiting.empty()) {
    end.stalled = false;
    return;
  }
  if (!path_is_up(writes_[waiting.front().first])) {
    end.waiting = waiting;
    if (network_.now() >= end.retry_until || end.removed) {
      end.hung = network_.random().chance(network_.faults.hangs);
      break_path(id, kNone);
    } else {
      network_.after(
          network_.random().duration(std::chrono::microseconds(200), std::chrono::milliseconds(10)),
          [this, id] { resume(id); });
    }
    return;
  }
  end.stalled = false;
  for (const auto& [index, piece] : waiting) {
    if (network_.ends[id].broken || writes_[index].aborted) {
      drop(index, piece);
    } else {
      receive(index, piece);
    }
    --writes_[index].events;
    release(index);
  }
}

void SimFabric::receive(std::uint32_t index, std::uint32_t piece) {
  Write& write = writes_[index];
  Port& port = target_of(write).own_port();
  const Nanos takes = nanos(static_cast<double>(bytes_of(write, piece)) * port.seconds_per_byte());
  TimePoint when = std::max(network_.now(), port.received + takes);
  port.received = when;
  when += network_.random().duration(Nanos::zero(), own_port().options.jitter);
  if (capabilities_.ordered) {
    Network::End& end = end_of(write);
    end.last_landing = when = std::max(when, end.last_landing);
  } else if (when == network_.now()) {
    return land(index, piece);
  }
  schedule<&SimFabric::land>(index, piece, when);
}

void SimFabric::land(std::uint32_t index, std::uint32_t piece) {
  Write& write = writes_[index];
  SimFabric& target = target_of(write);
  const Network::End& from = end_of(write);
  const Network::End& to = network_.ends[write.to_end];
  const bool lets_in =
      !to.removed || (!from.removed && !capabilities_.ordered && network_.faults.lands_after_target_removed);
  if (write.aborted || target.closed_ || !lets_in) return drop(index, piece);
  const std::uint64_t offset = offset_of(write, piece);
  const std::uint64_t bytes = bytes_of(write, piece);
  const Registration* memory = target.find_memory(write.request.target_key);
  if (memory == nullptr) {
    write.refused = true;
  } else {
    const std::uint64_t at = write.request.target_address + offset - memory->address;
    if (write.request.target_address < memory->address || at > memory->bytes || bytes > memory->bytes - at) {
      network_.violate(fmt::format("T7: process {} posted a write outside of the region it names", process_));
      write.refused = true;
    } else if (!write.refused) {
      network_.note(Event::landed, target.id_, write.serial, at, bytes);
      if (bytes != 0) {
        std::memcpy(memory->base + at, write.data + offset, bytes);
        target.own_port().bytes += bytes;
        if (network_.observer != nullptr)
          network_.observer->landed(process_, target.process_, memory->base + at, bytes);
      }
    }
  }
  if (--write.remaining != 0) return;
  write.source_key = 0;
  if (!write.refused && write.request.has_immediate) {
    network_.note(Event::arrived, target.id_, write.serial, write.request.immediate);
    target.push({.kind = Completion::Kind::arrived, .immediate = write.request.immediate});
  }
  if (write.mode == Mode::whole || write.mode == Mode::retries)
    schedule<&SimFabric::acknowledge>(index, 0, network_.now() + own_port().options.latency);
}

void SimFabric::drop(std::uint32_t index, std::uint32_t piece) {
  Write& write = writes_[index];
  network_.note(Event::dropped, id_, write.serial, offset_of(write, piece), bytes_of(write, piece));
  if (write.mode != Mode::whole && write.mode != Mode::retries) return;
  if (capabilities_.ordered) {
    if (!end_of(write).broken) break_path(write.from_end, kNone);
    return;
  }
  write.mode = network_.random().chance(network_.faults.hangs) ? Mode::hangs : Mode::fails;
  if (write.mode == Mode::fails)
    fail_later(index, network_.random().duration(network_.faults.retry_low, network_.faults.retry_high));
}

void SimFabric::acknowledge(std::uint32_t index, std::uint32_t piece) {
  Write& write = writes_[index];
  if (write.completed || write.failing) return;
  if (!path_is_up(write) && !end_of(write).removed) {
    Random& random = network_.random();
    const Nanos again = random.duration(std::chrono::microseconds(200), std::chrono::milliseconds(20));
    if (random.chance(network_.faults.retries))
      return schedule<&SimFabric::acknowledge>(index, piece, network_.now() + again);
    if (random.chance(network_.faults.hangs)) {
      write.mode = Mode::ack_lost_hangs;
    } else {
      write.mode = Mode::ack_lost_fails;
      fail_later(index, random.duration(network_.faults.retry_low, network_.faults.retry_high));
    }
    if (capabilities_.ordered) break_path(write.from_end, index);
    return;
  }
  complete(index, !write.refused);
  if (write.refused && capabilities_.ordered) break_path(write.from_end, index);
}

// ---- completions

void SimFabric::fail_later(std::uint32_t index, Nanos delay) {
  if (std::exchange(writes_[index].failing, true)) return;
  schedule<&SimFabric::time_out>(index, 0, network_.now() + delay);
}

void SimFabric::time_out(std::uint32_t index, std::uint32_t) { complete(index, false); }

void SimFabric::complete(std::uint32_t index, bool delivered) {
  Write& write = writes_[index];
  if (std::exchange(write.completed, true)) return;
  if (!delivered) detach_source(write);
  const bool orphan = end_of(write).removed;
  if (!orphan) --outstanding_;
  // After its end was removed a write's completion comes or does not.
  if (closed_ || (orphan && network_.random().chance(0.5))) return;
  network_.note(delivered ? Event::delivered : Event::failed, id_, write.serial, write.refused);
  push({.kind = delivered ? Completion::Kind::delivered : Completion::Kind::failed,
        .refused = !delivered && write.refused,
        .error = delivered              ? 0
                 : write.refused        ? kAccessRefused
                 : end_of(write).broken ? kFlushed
                                        : kRetriesExhausted,
        .cookie = write.request.cookie});
}

// Those under way, in the order of posting.
std::vector<std::uint32_t> SimFabric::writes_of(std::uint64_t end) {
  std::vector<std::uint32_t> found;
  for (std::uint32_t index = 0; index < writes_.size(); ++index) {
    if (writes_[index].used && writes_[index].from_end == end) found.push_back(index);
  }
  std::sort(found.begin(), found.end(),
            [this](std::uint32_t a, std::uint32_t b) { return writes_[a].serial < writes_[b].serial; });
  return found;
}

// A path with order ends as a whole. What has landed stays; the rest does not land any more.
void SimFabric::break_path(std::uint64_t id, std::uint32_t except) {
  Network::End& end = network_.ends[id];
  if (std::exchange(end.broken, true)) return;
  network_.note(Event::path_broken, id_, id);
  end.stalled = false;
  Random& random = network_.random();
  auto under_way = writes_of(id);
  std::erase(under_way, except);
  // As many of them, in their order, as the network happens to have taken still land.
  bool lands = true;
  for (const std::uint32_t index : under_way) {
    Write& write = writes_[index];
    if (write.remaining != 0 && (lands = lands && random.chance(0.5)); !lands)
      write.aborted = write.remaining != 0;
    if (write.completed || write.failing) continue;
    if (end.hung) {
      write.mode = Mode::hangs;
    } else {
      write.mode = Mode::fails;
      fail_later(index, random.duration(Nanos(500), std::chrono::microseconds(100)));
    }
  }
  for (const auto& [index, piece] : std::exchange(end.waiting, {})) {
    drop(index, piece);
    --writes_[index].events;
    release(index);
  }
}

// The memory that it is read from may go now; what is on the wire is a copy.
void SimFabric::detach_source(Write& write) {
  if (write.source_key == 0 || write.request.bytes == 0 || write.remaining == 0 || write.aborted) {
    write.source_key = 0;
    return;
  }
  write.on_wire.assign(write.data, write.data + write.request.bytes);
  write.data = write.on_wire.data();
  write.source_key = 0;
}

// This side's end is gone: what is under way on it may land or not, until the other end has gone as well.
void SimFabric::abandon(std::uint64_t end) {
  bool none_left = network_.random().chance(0.3);
  for (const std::uint32_t index : writes_of(end)) {
    Write& write = writes_[index];
    if (!write.completed) --outstanding_;
    const bool lost = none_left || network_.random().chance(0.3);
    if (lost && write.remaining != 0) write.aborted = true;
    // Behind what is lost nothing arrives where there is an order.
    none_left |= lost && write.remaining != 0 && capabilities_.ordered;
    detach_source(write);
    release(index);
  }
}

void SimFabric::release(std::uint32_t index) {
  Write& write = writes_[index];
  if (!write.used || write.events != 0 || (!write.completed && !end_of(write).removed)) return;
  write.used = false;
  write.on_wire = {};
  free_writes_.push_back(index);
}

}  // namespace switchyard::sim
