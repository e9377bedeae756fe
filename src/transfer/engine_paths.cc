// Paths: one rail of ours joined with one of a peer's. How they are opened, what their failure does, and how
// what was under way on them finds another.
//
// A path fails for both sides. The side that notices removes its end and says so; the other removes its own
// and answers: from then on nothing that was posted on the path lands any more. Both then tell each other
// what they have counted, and only when a side has heard that is its part settled: what the other had counted
// any earlier may be less, because a single end that is gone does not keep everything out. What was not
// acknowledged goes back to its transfers, except for transfers that the other side has counted: those have
// arrived, and their memory may be somebody else's by now.
//
// A path is up for a side when an empty write of it has gone over the path: ends may be joined that no
// network joins.
#include <algorithm>

#include "base/log.h"
#include "transfer/engine_core.h"
#include "transfer/path_plan.h"

namespace switchyard {

using transfer::kNoIndex;
using transfer::Path;
using transfer::PathRecord;
using transfer::Peer;
using transfer::TransferSlot;
using transfer::WorkRequest;

namespace {

constexpr std::uint8_t kMaxAttempts = 8;  // of one work request, each on a path that broke under it
constexpr int kLongestRest = 64;          // times EngineOptions::path_rest
constexpr int kTriesOfLast = 10;
constexpr double kUnknownLine = 1e9;      // bytes per second, where nobody says
constexpr Nanos kProbeInterval = std::chrono::milliseconds(1);  // between attempts to post a probe

// Why there is no path.
std::string_view trouble(const Peer& peer) {
  return peer.path_trouble.empty() ? "none was joined in time" : std::string_view(peer.path_trouble);
}

}  // namespace

// All pairs of rails of the same fabric; those to be opened at first are wanted.
void EngineCore::make_paths(std::uint32_t index) {
  Peer& peer = peers_[index];
  std::vector<Path> paths;
  std::vector<bool> planned(rails_.size(), false);
  for (std::uint16_t i = 0; i < rails_.size(); ++i) {
    if (planned[i]) continue;
    std::vector<transfer::PlannedRail> here, there;
    for (std::uint16_t j = i; j < rails_.size(); ++j) {
      if (rails_[j].fabric != rails_[i].fabric) continue;
      planned[j] = true;
      here.push_back({j, rails_[j].rail->capabilities().bytes_per_second});
    }
    for (std::uint16_t j = 0; j < peer.address.rails.size(); ++j) {
      const PeerAddress::Rail& rail = peer.address.rails[j];
      if (rail.fabric == rails_[i].fabric) there.push_back({j, rail.bytes_per_second});
    }
    const auto primary = primary_paths(here, there);
    for (const auto& ours : here) {
      for (const auto& theirs : there) {
        // A path to ourselves has one end, which is both.
        if (peer.local && ours.index != theirs.index) continue;
        Path& path = paths.emplace_back();
        path.local = ours.index;
        path.remote = theirs.index;
        path.wanted = std::find(primary.begin(), primary.end(),
                                transfer::RailPair(ours.index, theirs.index)) != primary.end() ||
                      peer.local;
        path.rest = options_.path_rest;
        std::uint64_t line = theirs.bytes_per_second;
        if (ours.bytes_per_second != 0)
          line = line == 0 ? ours.bytes_per_second : std::min(line, ours.bytes_per_second);
        path.line = line == 0 ? kUnknownLine : static_cast<double>(line);
      }
    }
  }
  std::lock_guard lock(mutex_);
  peer.paths = std::move(paths);
}

// At that time, or earlier if that was wanted already.
void EngineCore::arm_check(std::uint32_t index, TimePoint when) {
  if (when >= peers_[index].check_at) return;
  peers_[index].check_at = when;
  deadlines_.set(peer_deadline(index), when);
}

// What is due with the paths of an open peer: opening, stalls, and giving up. Comes back as long as there is
// something to watch.
void EngineCore::check_paths(std::uint32_t index) {
  Peer& peer = peers_[index];
  const std::uint32_t generation = peer.generation;
  peer.check_at = TimePoint::max();
  if (now_ >= peer.confirm_at) confirm_arrivals(peer);
  TimePoint next = peer.confirm_at;
  const Nanos patience = std::max(options_.connect_limit, options_.stall_limit);  // without any path
  bool hope = false;
  // Pairs that were not planned are tried while none is up: after the last one has broken, or when those that
  // were planned lead nowhere.
  const bool planned_left = std::any_of(peer.paths.begin(), peer.paths.end(), [](const Path& path) {
    return path.wanted && path.state != Path::State::unusable && !path.opened_in_vain;
  });
  const bool tries_all = peer.paths_up == 0 && (peer.ever_up || !planned_left);
  for (std::uint32_t i = 0; i < peer.paths.size(); ++i) {
    Path& path = peer.paths[i];
    if (path.state == Path::State::up && path.outstanding.get() != 0) {
      if (now_ - path.last_progress >= options_.stall_limit) {
        fail_path(index, i, "nothing was completed in time");
      } else {
        next = std::min(next, path.last_progress + options_.stall_limit);
      }
    }
    if (peer.local && path.state == Path::State::closing) {
      poll_rail(path.local);
      poll_rail(path.remote);
      settle_path(index, i, peer.arrivals.counted());
      close_path(path, path.opened_in_vain);
    }
    if (path.state == Path::State::opening || path.state == Path::State::closing) {
      hope = true;
      next = std::min(next, path.changed + options_.stall_limit);
      if (path.state == Path::State::opening && now_ - path.changed >= options_.stall_limit) {
        fail_path(index, i, path.joined ? "nothing goes through" : "it was not opened in time");
      } else if (path.state == Path::State::opening && path.joined && path.probe == kNoIndex) {
        prove_path(index, i);
        next = std::min(next, now_ + kProbeInterval);
      }
    }
    if (peer.generation != generation) return;
    if (path.state != Path::State::closed) continue;
    hope |= path.wanted || tries_all;
    if (!(path.wanted || tries_all) || !(peer.local || opens_paths(peer))) continue;
    // While there is no other, it is tried several times before its peer is given up.
    const TimePoint retry_at =
        peer.paths_up == 0 ? std::min(path.retry_at, path.changed + patience / kTriesOfLast) : path.retry_at;
    if (now_ < retry_at) {
      next = std::min(next, retry_at);
    } else if (!rails_[path.local].healthy.get()) {
      next = std::min(next, now_ + options_.path_rest);
    } else {
      open_path(index, path);
      if (peer.generation != generation) return;
      next = std::min(next, now_ + (peer.local ? kProbeInterval : options_.path_rest));
    }
  }
  if (peer.paths_up == 0) {
    if (!hope && (peer.local || opens_paths(peer))) {
      return lose(index,
                  peer.paths.empty()
                      ? Error{ErrorCode::unsupported, fmt::format("it has no rail of fabric '{}'", fabrics())}
                      : Error{ErrorCode::unsupported, fmt::format("no path to it works: {}", trouble(peer))});
    }
    const TimePoint limit = peer.paths_down_since + patience;
    if (now_ >= limit)
      return lose(index, {ErrorCode::peer_lost, fmt::format("no path to it works: {}", trouble(peer))});
    next = std::min(next, limit);
  }
  if (next != TimePoint::max()) arm_check(index, std::max(next, now_ + std::chrono::milliseconds(1)));
}

void EngineCore::say(const Peer& peer, const Path& path, PathRecord::Kind kind, std::vector<std::byte> token,
                     std::string reason) {
  PathRecord record{.kind = kind,
                    .sender_rail = path.local,
                    .receiver_rail = path.remote,
                    .incarnation = path.incarnation,
                    .token = std::move(token),
                    .reason = std::move(reason)};
  if (kind == PathRecord::Kind::closed) record.counted = peer.arrivals.counted();
  control_->send_path(peer.control, record);
}

void EngineCore::open_path(std::uint32_t index, Path& path) {
  Peer& peer = peers_[index];
  auto end = rails_[path.local].rail->add_peer(peer.address.rails[path.remote].address);
  if (!end) {
    peer.path_trouble = end.error().message;
    if (end.error().code == ErrorCode::unsupported || end.error().code == ErrorCode::corrupt) {
      path.state = Path::State::unusable;
      log::debug("engine '{}': no path of {} to {}:{}: {}", options_.name, rails_[path.local].fabric,
                 peer.address.control_host, peer.address.control_port, end.error().message);
    } else {
      close_path(path, true);
    }
    return;
  }
  path.end = end->peer;
  path.has_end = true;
  path.joined = false;
  path.state = Path::State::opening;
  path.changed = now_;
  ++path.incarnation;
  if (!peer.local) return say(peer, path, PathRecord::Kind::open, std::move(end->token));
  const auto path_index = static_cast<std::uint32_t>(&path - peer.paths.data());
  if (auto ok = rails_[path.local].rail->connect_peer(path.end, end->token); !ok)
    return fail_path(index, path_index, ok.error().message);
  prove_path(index, path_index);
}

// Both ends are joined. Posts the probe, or leaves it to the next check.
void EngineCore::prove_path(std::uint32_t index, std::uint32_t path_index) {
  Peer& peer = peers_[index];
  Path& path = peer.paths[path_index];
  if (!std::exchange(path.joined, true)) {
    path.changed = now_;
    arm_check(index, now_ + kProbeInterval);
  }
  const std::uint32_t probe = take_request(true);
  if (probe == kNoIndex) return;
  const RegionKey::Rail& log = peer.introduction.log[path.remote];
  const fabric::WriteRequest write{.target_address = log.address + peer.introduction.log_offset,
                                   .target_key = log.key,
                                   .cookie = std::uint64_t{requests_[probe].generation} << 32 | probe};
  if (rails_[path.local].rail->post(path.end, {&write, 1}) == 0) return free_request(probe);
  WorkRequest& request = requests_[probe];
  request.kind = WorkRequest::Kind::probe;
  request.state = WorkRequest::State::posted;
  request.peer = index;
  request.path = path_index;
  path.probe = probe;
  ++outstanding_;
  if (need_asking_ && rails_[path.local].rail->wait_fd() < 0) keep_awake(peer);
}

void EngineCore::drop_probe(Path& path) {
  if (path.probe == kNoIndex) return;
  free_request(std::exchange(path.probe, kNoIndex));
  --outstanding_;
}

void EngineCore::probed(std::uint32_t request_index, const fabric::Completion& completion) {
  const std::uint32_t index = requests_[request_index].peer, path_index = requests_[request_index].path;
  Peer& peer = peers_[index];
  Path& path = peer.paths[path_index];
  drop_probe(path);
  if (completion.kind == fabric::Completion::Kind::failed)
    return fail_path(index, path_index, rails_[path.local].rail->describe_error(completion.error));
  // Now the other side may try.
  if (!peer.local && opens_paths(peer)) say(peer, path, PathRecord::Kind::ready);
  path_is_up(index, path);
}

void EngineCore::path_is_up(std::uint32_t index, Path& path) {
  Peer& peer = peers_[index];
  path.state = Path::State::up;
  path.up.set(true);
  path.changed = path.last_progress = now_;
  path.rest = options_.path_rest;
  path.rate = 0;
  ++peer.paths_up;
  peer.local_path_up |= rails_[path.local].rail->capabilities().local;
  peer.ever_up = true;
  if (peer.wants_posting()) want_posting(index);
}

void EngineCore::remove_end(Peer& peer, Path& path) {
  if (path.state == Path::State::up) {
    path.up.set(false);
    path.state = Path::State::closing;
    if (--peer.paths_up == 0) peer.paths_down_since = now_;
    peer.local_path_up = std::any_of(peer.paths.begin(), peer.paths.end(), [&](const Path& other) {
      return other.state == Path::State::up && rails_[other.local].rail->capabilities().local;
    });
  }
  drop_probe(path);
  path.joined = false;
  if (!std::exchange(path.has_end, false)) return;
  rails_[path.local].rail->remove_peer(path.end);
}

void EngineCore::close_path(Path& path, bool in_vain) {
  path.state = Path::State::closed;
  path.changed = now_;
  path.retry_at = now_ + path.rest;
  if (in_vain) path.rest = std::min(path.rest * 2, options_.path_rest * kLongestRest);
}

void EngineCore::fail_path(std::uint32_t index, std::uint32_t path_index, const std::string& why) {
  Peer& peer = peers_[index];
  Path& path = peer.paths[path_index];
  if (path.state != Path::State::up && path.state != Path::State::opening) return;
  const bool was_up = path.state == Path::State::up;
  remove_end(peer, path);
  peer.path_trouble = why;
  if (was_up) {
    path.failovers.add(1);
    count_.failovers.add(1);
    if (!shutting_down_) {
      log::warn("engine '{}': the path from rail {} ({}) to rail {} of {}:{} broke: {}; {} left",
                options_.name, path.local, rails_[path.local].fabric, path.remote, peer.address.control_host,
                peer.address.control_port, why, peer.paths_up);
    }
  }
  path.state = Path::State::closing;
  path.changed = now_;
  path.opened_in_vain = !was_up;
  // The other side of a path to ourselves is gone as well. It is settled when nothing is being polled: what
  // has arrived over it may be in the same batch as the failure.
  if (peer.local) return arm_check(index, now_);
  say(peer, path, PathRecord::Kind::close, {}, why);
  arm_check(index, now_ + options_.path_rest);
}

void EngineCore::on_path(transfer::LinkId link, const PathRecord& record) {
  const std::uint32_t index = peer_of(link);
  if (index == kNoIndex) return;
  Peer& peer = peers_[index];
  // Whoever is confirmed has room again.
  for (const std::uint16_t number : record.counted) peer.numbers.confirm(number);
  if (record.kind == PathRecord::Kind::counted) return;
  auto found = std::find_if(peer.paths.begin(), peer.paths.end(), [&](const Path& each) {
    return each.local == record.receiver_rail && each.remote == record.sender_rail;
  });
  using Kind = PathRecord::Kind;
  const bool out_of_turn = opens_paths(peer) ? record.kind == Kind::open || record.kind == Kind::ready
                                             : record.kind == Kind::accept;
  if (found == peer.paths.end() || out_of_turn) {
    return lose(index, {ErrorCode::peer_lost, "it sent a record of a path that cannot be"});
  }
  Path& path = *found;
  const auto path_index = static_cast<std::uint32_t>(found - peer.paths.begin());
  fabric::Fabric& rail = *rails_[path.local].rail;
  switch (record.kind) {
    case Kind::open: {
      // The opener never has two openings under way; what is left of the last one is settled.
      if (path.state != Path::State::closed && path.state != Path::State::unusable)
        return lose(index, {ErrorCode::peer_lost, "it opened a path twice"});
      path.incarnation = record.incarnation;
      path.joined = false;
      auto end = rails_[path.local].healthy.get()
                     ? rail.add_peer(peer.address.rails[path.remote].address)
                     : Result<fabric::PathEnd>(fail(ErrorCode::io, "the port of the other side is down"));
      if (end) {
        path.end = end->peer;
        path.has_end = true;
        if (auto ok = rail.connect_peer(path.end, record.token); !ok) {
          remove_end(peer, path);
          end = pass(ok.error());
        }
      }
      path.state = end ? Path::State::opening : Path::State::closing;
      path.changed = now_;
      if (end) {
        say(peer, path, Kind::accept, std::move(end->token));
      } else {
        peer.path_trouble = end.error().message;
        path.opened_in_vain = true;
        say(peer, path, Kind::close, {}, end.error().message);
      }
      break;
    }
    case Kind::accept:
      if (path.state != Path::State::opening || path.joined || path.incarnation != record.incarnation) break;
      if (auto ok = rail.connect_peer(path.end, record.token); !ok) {
        fail_path(index, path_index, ok.error().message);
        break;
      }
      prove_path(index, path_index);
      break;
    case Kind::ready:
      if (path.state == Path::State::opening && path.incarnation == record.incarnation && !path.joined)
        prove_path(index, path_index);
      break;
    case Kind::close:
      if (path.incarnation != record.incarnation) break;
      if (path.state == Path::State::up) {
        path.failovers.add(1);
        count_.failovers.add(1);
      }
      if (path.state != Path::State::closed) {
        if (!record.reason.empty()) peer.path_trouble = record.reason;
        if (path.state != Path::State::closing) {
          path.opened_in_vain = path.state == Path::State::opening;
          path.changed = now_;
        }
        remove_end(peer, path);
        poll_rail(path.local);
        path.state = Path::State::closing;
        path.said_closed = true;
      }
      say(peer, path, Kind::closed);
      break;
    case Kind::counted:
      break;
    case Kind::closed:
      if (path.state != Path::State::closing || path.incarnation != record.incarnation) break;
      poll_rail(path.local);
      // The other side removed its end before it said so, and ours was gone before: what is counted now is
      // all that this path has brought. It waits for that number to settle its own part.
      if (!std::exchange(path.said_closed, false)) say(peer, path, Kind::closed);
      settle_path(index, path_index, record.counted);
      close_path(path, path.opened_in_vain);
      arm_check(index, now_ + options_.path_rest);
      break;
  }
}

// Nothing of the path lands any more: what has not been acknowledged goes back to its transfers.
void EngineCore::settle_path(std::uint32_t index, std::uint32_t path_index,
                             std::span<const std::uint16_t> counted) {
  Path& path = peers_[index].paths[path_index];
  while (!path.requests.empty()) {
    const std::uint32_t request_index = path.requests.front();
    WorkRequest& request = requests_[request_index];
    const std::uint32_t slot_index = request.slot;
    TransferSlot& slot = slots_[slot_index];
    take_off(request_index);
    const bool arrived = slot.number && slot.arrival_posted &&
                         std::find(counted.begin(), counted.end(), *slot.number & 0x7fff) != counted.end();
    if (!arrived) slot.arrival_posted = false;
    const bool again = !slot.ended && !arrived && request.kind == WorkRequest::Kind::data;
    const bool worn_out = again && request.attempts == kMaxAttempts;
    if (again && !worn_out) {
      ++request.attempts;
      request.state = WorkRequest::State::again;
      // Its completion may still come, and is none of the next posting.
      ++request.generation;
      slot.again.push_back(requests_, request_index);
    } else {
      free_request(request_index);
    }
    if (slot.ended) {
      if (slot.outstanding == 0) release(slot_index);
    } else if (worn_out) {
      end(slot_index, fail(ErrorCode::io, "too many paths broke under it, the last because: {}",
                           peers_[index].path_trouble));
    } else if (again) {
      queue(slot_index);
    } else {
      advance(slot_index);
    }
  }
}

void EngineCore::check_health() {
  for (std::uint16_t i = 0; i < rails_.size(); ++i) {
    transfer::EngineRail& rail = rails_[i];
    const bool healthy = rail.rail->healthy();
    if (healthy == rail.healthy.get()) continue;
    rail.healthy.set(healthy);
    log::warn("engine '{}': rail {} ({}) is {}", options_.name, i, rail.fabric,
              healthy ? "up again" : "down");
    if (healthy) continue;
    for (std::uint32_t peer = 0; peer < peers_.size(); ++peer) {
      for (std::uint32_t path = 0; path < peers_[peer].paths.size(); ++path) {
        if (peers_[peer].paths[path].local == i) fail_path(peer, path, "the port is down");
      }
    }
  }
}

}  // namespace switchyard
