// TransferEngine: one-sided writes between processes and machines, over any network.
//
// A *rail* is one network port; an engine may have several, and splits its transfers over them by their
// measured speed. A *path* joins a rail of this engine and one of a peer. A *region* is memory that peers may
// write into, given a RegionKey. A *transfer* is one submitted operation, whatever number of work requests it
// becomes. A *counter*, at the receiver, counts finished transfers that were aimed at it. A *message* is a
// small two-sided datagram.
//
// Guarantees:
//  - Nothing is ordered between transfers, nor inside one.
//  - When a counter reaches its target, every byte of the transfers it counted is visible.
//  - Counters count transfers, not work requests, and may be armed before or after arrivals.
//  - Every submitted operation ends in exactly one Done. Every wait has a deadline.
//  - After cancel() has reported `drained`, no byte of that transfer lands any more.
//  - A peer whose process dies ends its transfers with `peer_lost`, at once; one whose host dies, within the
//    heartbeat limit. A restarted peer has a new epoch; keys and addresses of the old one are refused.
//  - Memory is bounded: a full queue answers `exhausted`.
//
// Threads: every function may be called from any thread, and from inside a callback. Callbacks (Done,
// MessageHandler, PeerHandler) run on the engine's worker thread and must not block.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard {

// Encryption of the control channel, TLS 1.3. With certificates, both sides show one that `ca_file` has
// signed; without them, keys come from the shared key. Files are PEM and are read when the engine opens.
struct TlsOptions {
  bool enabled = false;
  std::string certificate_file;  // all three or none; a chain, the engine's own certificate first
  std::string key_file;          // not encrypted
  std::string ca_file;
};

struct EngineOptions {
  std::string name = "engine";  // for log lines
  // The rails, separated by commas. Each is "shm" (shared memory between processes of one user on one host),
  // "verbs" (InfiniBand and RoCE), or a provider of libfabric ("net", "tcp;ofi_rxm", "efa"); "@" adds the
  // local address or the device, as in "verbs@mlx5_0:1,verbs@mlx5_1" or "net@10.0.0.1,net@10.0.1.1". "auto":
  // shared memory where it works and, unless the control channel stays on this host, the best network found;
  // what was taken is logged and stands in metrics(). Peers meet on the rails whose fabrics both have; a path
  // that stays on the host is preferred.
  std::string fabric = "auto";
  std::string control_host = "127.0.0.1";  // address that the control channel listens on and is reached at
  std::uint16_t control_port = 0;          // 0: any free one
  // A secret that all engines which talk to each other share: any bytes, kMinKeyBytes at least, random ones
  // at best. Each side of a connection proves that it has it before the other gives out an address or a key.
  // Empty: whoever reaches the control port is let in.
  std::string shared_key;
  static constexpr std::size_t kMinKeyBytes = 16;
  static constexpr std::size_t kMaxKeyBytes = 4096;
  TlsOptions tls;                        // the same on all engines, like the key
  std::size_t message_bytes = 64 << 10;  // largest message, the same for all peers of an engine
  std::uint32_t message_slots = 64;      // receive buffers for messages
  std::uint32_t max_transfers = 4096;    // submitted and not yet done
  std::uint32_t max_counters = 1024;
  std::uint32_t max_peers = 512;
  // Times are positive, and a year at most.
  Nanos heartbeat_interval = std::chrono::milliseconds(500);
  Nanos heartbeat_limit = std::chrono::seconds(3);
  Nanos connect_limit = std::chrono::seconds(5);
  // A path with something under way and no completion for so long counts as broken.
  Nanos stall_limit = std::chrono::seconds(3);
  // How long a broken path rests before it is opened again; doubles up to 64 times as long while that fails.
  Nanos path_rest = std::chrono::milliseconds(50);
};

// 32 random bytes, for EngineOptions::shared_key. Errors: io.
Result<std::string> make_shared_key();

// Where an engine is reached: its random id, its epoch (new at every start), its control endpoint, its rails.
class PeerAddress {
 public:
  static constexpr std::size_t kMaxBytes = 4096;

  std::array<std::uint64_t, 2> engine_id{};
  std::uint64_t epoch = 0;
  std::string control_host;
  std::uint16_t control_port = 0;
  struct Rail {
    std::string fabric;                  // provider name
    std::vector<std::byte> address;      // as the fabric gives it
    std::uint64_t bytes_per_second = 0;  // of its line; 0 where it is not known
    friend bool operator==(const Rail&, const Rail&) = default;
  };
  std::vector<Rail> rails;

  std::vector<std::byte> serialize() const;
  // Errors: corrupt.
  static Result<PeerAddress> parse(std::span<const std::byte> bytes);
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};

// What a peer needs to write into a region.
struct RegionKey {
  static constexpr std::size_t kMaxBytes = 2048;

  std::array<std::uint64_t, 2> engine_id{};
  std::uint64_t epoch = 0;
  std::uint64_t bytes = 0;
  struct Rail {
    std::uint64_t address = 0;  // remote address of byte 0: virtual, or 0 where the fabric wants offsets
    std::uint64_t key = 0;
    friend bool operator==(const Rail&, const Rail&) = default;
  };
  std::vector<Rail> rails;  // parallel to PeerAddress::rails

  std::vector<std::byte> serialize() const;
  // Errors: corrupt.
  static Result<RegionKey> parse(std::span<const std::byte> bytes);
  friend bool operator==(const RegionKey&, const RegionKey&) = default;
};

// Names a counter of a peer; travels in messages. Plain data, 16 bytes.
struct CounterId {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  std::uint64_t epoch = 0;
  friend bool operator==(const CounterId&, const CounterId&) = default;
};

// Ends an operation: called exactly once, on the worker thread.
using Done = std::function<void(const Status&)>;

using MessageHandler = std::function<void(const PeerAddress& from, std::span<const std::byte> message)>;

// A peer that was connected, in either direction, is gone. All its transfers have ended before this call.
using PeerHandler = std::function<void(const PeerAddress& peer, const Error& why)>;

class EngineCore;

// Memory registered with an engine; unregistered when the last handle goes. The memory itself belongs to the
// caller and must outlive the region. Cheap to copy.
class Region {
 public:
  Region() = default;
  std::byte* base() const;
  std::size_t bytes() const;
  RegionKey key() const;
  explicit operator bool() const { return state_ != nullptr; }

  struct State;
  explicit Region(std::shared_ptr<State> state) : state_(std::move(state)) {}
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

// A counter of this engine, freed when the last handle goes. The next user of its slot has another
// generation, so what is still written for the old one counts nowhere.
class Counter {
 public:
  Counter() = default;
  CounterId id() const;
  // Done comes when `transfers` transfers in all have arrived since the counter was made, those before this
  // call included; or with timed_out, or cancelled when the handle or the engine goes first. One expectation
  // at a time; after it is done another may be armed with a larger total. Errors (nothing armed, no Done):
  // invalid.
  Status expect(std::uint64_t transfers, TimePoint deadline, Done done);
  // Withdraws the expectation, if any; its Done comes with cancelled.
  void cancel();
  // Transfers that have arrived in full.
  std::uint64_t arrived() const;
  explicit operator bool() const { return state_ != nullptr; }

  struct State;
  explicit Counter(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

enum class Priority : std::uint8_t {
  bulk,     // throughput
  latency,  // overtakes bulk transfers wherever they queue in this engine
};

// What every submitting call may say beside its operands.
struct SubmitOptions {
  std::optional<CounterId> counter;       // of the peer; counted once when all bytes have landed
  TimePoint deadline = TimePoint::max();  // timed_out if it is not complete by then
  Priority priority = Priority::bulk;
};

// One run of bytes.
struct Write {
  Region source;
  std::uint64_t source_offset = 0;
  PeerAddress peer;
  RegionKey target;
  std::uint64_t target_offset = 0;
  std::uint64_t bytes = 0;
  SubmitOptions options;
};

// Page i of the transfer is read at source_offset + source_pages[i] * source_stride and lands at
// target_offset + target_pages[i] * target_stride. Both lists have equal length; pages of the target may not
// repeat. At most kMaxPages pages.
struct PagedWrite {
  static constexpr std::size_t kMaxPages = 1 << 20;

  Region source;
  std::uint64_t source_offset = 0;
  std::uint64_t source_stride = 0;
  std::vector<std::uint32_t> source_pages;
  PeerAddress peer;
  RegionKey target;
  std::uint64_t target_offset = 0;
  std::uint64_t target_stride = 0;
  std::vector<std::uint32_t> target_pages;
  std::uint64_t page_bytes = 0;
  SubmitOptions options;
};

// Peers that are written to together, each with the region that is meant. Made once, used often; cheap to
// copy.
class PeerGroup {
 public:
  struct Member {
    PeerAddress peer;
    RegionKey target;
  };
  static constexpr std::size_t kMaxMembers = 4096;

  PeerGroup() = default;
  explicit PeerGroup(std::vector<Member> members)
      : members_(std::make_shared<const std::vector<Member>>(std::move(members))) {}
  std::span<const Member> members() const {
    return members_ ? std::span<const Member>(*members_) : std::span<const Member>();
  }

 private:
  std::shared_ptr<const std::vector<Member>> members_;
};

// One slice to each member of a group; slices[i] is for members()[i]. It ends when all have ended, with the
// first error if there was one.
struct Scatter {
  struct Slice {
    std::uint64_t source_offset = 0;
    std::uint64_t target_offset = 0;
    std::uint64_t bytes = 0;
    std::optional<CounterId> counter;  // a slice without bytes and counter is left out
  };
  Region source;
  PeerGroup group;
  std::vector<Slice> slices;
  TimePoint deadline = TimePoint::max();
  Priority priority = Priority::bulk;
};

// No bytes: adds one to a counter of the peer. For barriers, and to say that something is done.
struct Signal {
  PeerAddress peer;
  CounterId counter;
  TimePoint deadline = TimePoint::max();
  Priority priority = Priority::latency;
};

// Called on the worker thread with the value last reported (at first: that at the call of watch()) and the
// present one.
using WatchHandler = std::function<void(std::uint64_t old_value, std::uint64_t new_value)>;

// Ends the watch when the handle goes; the handler may be running at that moment, but does not start any
// more.
class Watcher {
 public:
  Watcher() = default;
  explicit operator bool() const { return state_ != nullptr; }

  struct State;
  explicit Watcher(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

// Handle of a submitted operation. Dropping it does not cancel.
class Transfer {
 public:
  Transfer() = default;
  // Stops submitting; `drained` comes once no byte of this transfer lands any more. The transfer's own Done
  // comes first: with cancelled, or with whatever had already happened.
  void cancel(std::function<void()> drained);
  explicit operator bool() const { return id_ != 0; }

  Transfer(std::weak_ptr<EngineCore> engine, std::uint64_t id) : engine_(std::move(engine)), id_(id) {}

 private:
  std::weak_ptr<EngineCore> engine_;
  std::uint64_t id_ = 0;
};

struct EngineMetrics {
  struct Rail {
    std::string fabric;
    std::string device;  // or local address; empty where there is no choice
    bool healthy = true;
    std::uint64_t bytes_written = 0;
    std::uint64_t work_requests = 0;
    std::uint32_t outstanding = 0;  // work requests under way
    std::uint64_t retries = 0;      // posts that the rail had no room for
    std::uint64_t failed_requests = 0;
  };
  struct Path {
    std::uint16_t local_rail = 0;
    std::uint16_t remote_rail = 0;
    bool up = false;
    std::uint64_t bytes_written = 0;
    std::uint64_t work_requests = 0;
    std::uint32_t outstanding = 0;
    std::uint64_t failovers = 0;         // times that it broke and gave its work back
    std::uint64_t bytes_per_second = 0;  // as measured, 0 before
  };
  struct Peer {
    PeerAddress address;
    std::vector<Path> paths;
  };
  // How long the operations of a kind took from submission to Done, those that succeeded.
  struct Operation {
    std::string name;  // "write", "message", …
    std::uint64_t count = 0;
    std::uint64_t failed = 0;
    std::uint64_t bytes = 0;
    double seconds = 0;                    // sum
    std::array<std::uint64_t, 40> log2{};  // log2[i]: those of 2^(i-1) to 2^i ns
  };
  std::vector<Rail> rails;
  std::vector<Peer> peers;
  std::vector<Operation> operations;
  std::uint64_t transfers_submitted = 0;
  std::uint64_t transfers_done = 0;
  std::uint64_t transfers_failed = 0;
  std::uint32_t transfers_pending = 0;
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t messages_dropped = 0;  // no handler was set
  std::uint32_t counters_used = 0;
  std::uint32_t peers_connected = 0;
  std::uint64_t peers_lost = 0;
  std::uint64_t failovers = 0;            // paths that broke while their peer lived
  std::uint64_t requests_sent_again = 0;  // work requests that another path took over
  std::uint64_t stray_arrivals = 0;       // for counters or peers that were gone, or not meant for us
  std::uint64_t repeated_arrivals = 0;    // that a failover sent twice; counted once
};

class TransferEngine {
 public:
  // Opens the rails and the control channel and starts the worker. Errors: unsupported (no such fabric here),
  // io, invalid.
  static Result<std::unique_ptr<TransferEngine>> open(const EngineOptions& options);
  // Ends every operation with cancelled, tells the peers, joins the worker.
  ~TransferEngine();

  PeerAddress address() const;

  // Registers [base, base + bytes) on every rail, for local reads and remote writes. Errors: invalid,
  // exhausted, io. Costs system calls: do it at start, not per request.
  Result<Region> register_region(void* base, std::size_t bytes);
  // Memory of a device, exported as a DMA-BUF that holds [base, base + bytes) from `dmabuf_offset` on. The
  // descriptor is borrowed for the call. Errors: also unsupported (a rail that cannot reach it).
  Result<Region> register_dmabuf(void* base, std::size_t bytes, int dmabuf, std::uint64_t dmabuf_offset);

  // Errors: exhausted.
  Result<Counter> make_counter();

  // Submission. Errors returned here mean that nothing was sent and that Done will not come: invalid,
  // out_of_range (outside the source region or the advertised target), denied (old epoch), exhausted,
  // peer_lost (a peer known to be gone). Connects to the peer when it is new.
  Result<Transfer> write(Write write, Done done);
  Result<Transfer> write_pages(PagedWrite write, Done done);
  // At most EngineOptions::max_transfers - 1 slices.
  Result<Transfer> scatter(Scatter scatter, Done done);
  Result<Transfer> signal(const Signal& signal, Done done);
  // Done means that the peer's engine has the message, or will have lost it only by dying.
  Result<Transfer> send(const PeerAddress& peer, std::span<const std::byte> message, Done done = {},
                        TimePoint deadline = TimePoint::max());

  // Reports changes of a word in memory that the CPU reads, which a GPU kernel or another thread writes.
  // Changes that follow each other quickly may be reported as one. While a watch exists the worker looks at
  // least every 100 microseconds. The word must outlive the watcher. Errors: invalid (null or not 8-byte
  // aligned), exhausted.
  Result<Watcher> watch(const std::uint64_t* word, WatchHandler handler);

  // Set these before peers can know the address. Messages that come while none is set are dropped and
  // counted.
  void on_message(MessageHandler handler);
  void on_peer_lost(PeerHandler handler);

  // Starts a connection and watches the peer's life from now on, so that on_peer_lost comes for it.
  Status connect(const PeerAddress& peer, Done done);

  // Calls back on the worker thread, soon. For code that wants to run beside the callbacks, without locks.
  // Errors: exhausted.
  Status post(std::function<void()> task);

  EngineMetrics metrics() const;

  explicit TransferEngine(std::shared_ptr<EngineCore> core) : core_(std::move(core)) {}
  TransferEngine(const TransferEngine&) = delete;
  TransferEngine& operator=(const TransferEngine&) = delete;

 private:
  std::shared_ptr<EngineCore> core_;
};

}  // namespace switchyard
