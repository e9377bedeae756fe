// What the engine keeps of its transfers, work requests, paths and peers. Plain data; engine_core.h says who
// touches it.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fabric/fabric.h"
#include "switchyard/transfer.h"
#include "transfer/arrival_log.h"
#include "transfer/control_plane.h"
#include "transfer/index_list.h"
#include "transfer/relaxed.h"
#include "transfer/write_plan.h"

namespace switchyard {

struct Region::State {
  std::weak_ptr<EngineCore> engine;
  std::vector<std::unique_ptr<fabric::LocalMemory>> memories;  // by rail
  std::byte* base = nullptr;
  std::size_t bytes = 0;
  RegionKey key;
};

namespace transfer {

using EngineId = std::array<std::uint64_t, 2>;

constexpr std::uint32_t kMixedPaths = kNoIndex - 1;

// One submitted operation. Filled where it is submitted, then the worker's until it is free again.
struct TransferSlot {
  enum class Kind : std::uint8_t { write, message, connect, group };

  IndexLink link;  // in its peer's list, while it waits for a turn
  std::uint32_t generation = 1;
  Kind kind = Kind::write;
  Priority priority = Priority::bulk;
  bool used = false;            // guarded by the submission lock
  bool cancel_queued = false;   // guarded by the submission lock
  bool started = false;         // the worker has it
  bool ended = false;           // Done has been issued; kept until nothing is outstanding
  bool arrival_posted = false;  // the immediates that count it
  std::uint32_t peer = kNoIndex;
  std::uint32_t peer_generation = 0;
  std::uint32_t outstanding = 0;  // work requests on paths, an unacknowledged message, or a group's members
  std::uint32_t sole_path = kNoIndex;  // the peer's path that all outstanding requests are on, or kMixedPaths
  IndexList again;                     // work requests that a broken path has given back
  WritePlan plan;
  Region source;
  std::vector<RegionKey::Rail> target;  // by the peer's rail
  std::optional<CounterId> counter;
  std::optional<std::uint32_t> number;  // in the peer's arrival log
  std::vector<std::byte> message;
  std::uint64_t bytes = 0;
  TimePoint deadline = TimePoint::max();
  TimePoint began{};
  Done done;
  std::vector<std::function<void()>> drained;  // guarded by the submission lock

  // A scatter is a group with one member per slice.
  std::uint32_t group = kNoIndex;                                // of a member
  std::vector<std::pair<std::uint32_t, std::uint32_t>> members;  // of a group: slot and generation
  std::uint32_t unended = 0;                                     // members whose outcome is open
  Status outcome;                                                // of a group: the first error
};

// One write that a rail has, or that is to be posted again.
struct WorkRequest {
  enum class Kind : std::uint8_t { data, record, probe };
  enum class State : std::uint8_t {
    free,
    posted,  // in its path's list; a probe is in none
    again    // in its slot's list
  };

  IndexLink link;
  std::uint32_t generation = 1;
  State state = State::free;
  Kind kind = Kind::data;
  bool completed = false;  // as failed; it waits for its path to be settled
  std::uint8_t attempts = 0;
  std::uint32_t slot = kNoIndex;
  std::uint32_t peer = kNoIndex;
  std::uint32_t path = kNoIndex;
  Run run;
};

// Joins one of our rails and one of a peer's.
struct Path {
  enum class State : std::uint8_t {
    unusable,  // the rails cannot reach each other
    closed,
    opening,
    up,
    closing  // our end is gone; the other side's is until it says so
  };

  std::uint16_t local = 0;
  std::uint16_t remote = 0;
  State state = State::closed;
  bool wanted = false;  // to be opened, by the side that opens
  bool has_end = false;
  bool joined = false;          // while opening: both ends are, and a write shall prove it
  bool opened_in_vain = false;  // it failed before it was up
  bool said_closed = false;     // while closing: the other side has our counts
  fabric::PeerId end = 0;
  std::uint32_t incarnation = 0;
  std::uint32_t probe = kNoIndex;  // the write that proves it
  IndexList requests;
  TimePoint changed{};        // to its state
  TimePoint last_progress{};  // a completion, or the first post after a pause
  TimePoint retry_at{};
  Nanos rest{};

  // Speed: bytes completed since `mark`, while there was always something under way.
  TimePoint mark{};
  std::uint64_t marked_bytes = 0;
  double rate = 0;  // bytes per second, smoothed
  double line = 0;  // before there is a measurement

  Relaxed<bool> up{false};
  Relaxed<std::uint64_t> outstanding_bytes{0}, bytes_written{0}, work_requests{0}, failovers{0};
  Relaxed<std::uint64_t> shown_rate{0};
  Relaxed<std::uint32_t> outstanding{0};
};

struct Peer {
  enum class State : std::uint8_t { free, fresh, dialling, open };

  IndexLink link;  // in the list of peers that have something to post
  State state = State::free;
  bool local = false;  // this engine itself
  std::uint32_t generation = 1;
  PeerAddress address;
  LinkId control = kNoLink;
  std::array<IndexList, 2> writes;  // by priority: have something to post, or wait for a path
  IndexList messages;               // wait to be sent
  std::uint32_t unacknowledged = 0;
  Introduction introduction;  // theirs
  ArrivalLog arrivals;        // from it
  ArrivalNumbers numbers;     // to it
  std::vector<Path> paths;    // changed in length under the submission lock
  std::uint32_t paths_up = 0;
  std::uint32_t turn = 0;  // of the paths that are equal
  bool local_path_up = false;
  bool ever_up = false;
  std::string path_trouble;  // why the last path failed
  TimePoint paths_down_since{};
  TimePoint connect_deadline{};
  TimePoint last_ring{};
  TimePoint check_at = TimePoint::max();    // of its paths
  TimePoint confirm_at = TimePoint::max();  // what has arrived, however little that is

  bool wants_posting() const { return !writes[0].empty() || !writes[1].empty() || !messages.empty(); }
};

// One of our rails.
struct EngineRail {
  std::string fabric;
  std::string device;
  std::shared_ptr<switchyard::fabric::Fabric> rail;
  Relaxed<bool> healthy{true};
  Relaxed<std::uint64_t> bytes_written{0}, work_requests{0}, retries{0}, failed_requests{0};
  Relaxed<std::uint32_t> outstanding{0};
};

// What a turn of a transfer posts together.
inline constexpr std::size_t kBatch = 32;
struct BatchArrays {
  std::array<fabric::WriteRequest, kBatch> requests;
  std::array<std::uint32_t, kBatch> indices;
  std::array<bool, kBatch> counts;
  std::array<WritePlan::Position, kBatch> positions;
  std::array<bool, kBatch> from_plan;
};

}  // namespace transfer

}  // namespace switchyard
