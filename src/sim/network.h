// A network inside a test: virtual time, hosts with ports, processes on them, and the faults that befall
// all of these. Rails (sim_fabric.h) and control channels (sim_control.h) of simulated engines live on it.
//
// Everything happens in events, one after the other, in the order of virtual time; chance comes from one
// seeded generator. The same seed gives the same run.
//
// Threads: one, that of the test. Owned by the Cluster; outlives everything on it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sim/random.h"
#include "sim/trace.h"
#include "switchyard/time.h"

namespace switchyard::sim {

using HostId = std::uint32_t;
using ProcessId = std::uint32_t;
constexpr std::uint32_t kNone = ~std::uint32_t{0};

// A port and the rail on it.
struct PortOptions {
  std::string fabric = "sim";
  std::uint64_t bytes_per_second = 12'500'000'000;
  Nanos latency = std::chrono::microseconds(2);  // one way
  Nanos jitter{};     // a piece lands up to so much later; on rails with order those behind it wait
  Nanos per_write{};  // the port's own work on each write, beside its bytes
  Nanos cpu_per_post{}, cpu_per_write{};  // what the engine's thread spends in post()
  std::uint64_t mtu = 4096;               // pieces that land one by one
  std::uint32_t subnet = 0;               // nothing goes from one to another, though ends may be joined
  bool ordered = false;                   // like a reliable connection; else like EFA
  std::uint64_t max_write_bytes = 1 << 20;
  std::uint32_t max_outstanding = 256;
  std::uint32_t window = 64;
  bool tells_speed = true;  // Capabilities::bytes_per_second
};

struct Port {
  PortOptions options;
  bool up = true;
  bool announced = true;        // the device notices that it is down
  std::uint32_t percent = 100;  // of its speed
  TimePoint down_since{}, refuses_until{};
  TimePoint sent{}, received{};  // when it has sent and received all that it has been given
  std::uint64_t bytes = 0;       // that have landed here
  double seconds_per_byte() const {
    return 100.0 / (static_cast<double>(options.bytes_per_second) * percent);
  }
};

// What happens to writes that meet a port which is down.
struct FaultModel {
  double retries = 0.3;    // the sending device sends again until the port is back
  double hangs = 0.2;      // no completion ever comes
  double ack_lost = 0.25;  // everything lands, and the completion says `failed` or does not come
  double late = 0.3;       // of the pieces of a broken write: land much later, if the port is back
  Nanos retry_low = std::chrono::milliseconds(5);  // until a completion says `failed`
  Nanos retry_high = std::chrono::milliseconds(200);
  Nanos late_high = std::chrono::milliseconds(500);
  // Where the target alone has removed its end, rails without order still let writes land.
  bool lands_after_target_removed = true;
};

// What a test sees of the network.
class Observer {
 public:
  virtual ~Observer() = default;
  // Bytes of a write of `from` have come to be at `at`, in memory of `to`.
  virtual void landed(ProcessId from, ProcessId to, const std::byte* at, std::size_t bytes) = 0;
};

class SimFabric;
class SimControl;
struct Connection;

class Network {
 public:
  explicit Network(std::uint64_t seed, TimePoint start = TimePoint(std::chrono::seconds(1)));
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  FaultModel faults;
  Observer* observer = nullptr;
  // Memory may be registered on any thread, as with every rail: whoever does that, or steps the network while
  // others may, holds this.
  std::recursive_mutex mutex;

  // ---- time
  TimePoint now() const { return now_; }
  Random& random() { return random_; }
  Trace& trace() { return trace_; }
  void note(Event event, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0, std::uint64_t d = 0) {
    trace_.add(now_, event, a, b, c, d);
  }
  void at(TimePoint when, std::function<void()> action);
  void after(Nanos delay, std::function<void()> action) { at(now_ + delay, std::move(action)); }
  TimePoint next_event() const;
  // Goes to `when`, through all events until then.
  void advance(TimePoint when);

  // A rule is broken. The first one is kept.
  void violate(std::string what);
  const std::optional<std::string>& violation() const { return violation_; }

  // ---- hosts and processes
  struct Host {
    std::string name;  // control_host of its engines
    std::vector<Port> ports;
    bool isolated = false;  // nothing comes in or goes out
    bool dead = false;
  };
  struct Process {
    HostId host = 0;
    bool alive = true;
    bool woken = false;  // something has happened that its engine wants to know
    Nanos cpu{};         // spent since its engine's step began
  };
  HostId add_host(const std::vector<PortOptions>& ports);
  ProcessId add_process(HostId host);
  Host& host(HostId id) { return hosts_[id]; }
  Port& port(HostId host, std::uint32_t index) { return hosts_[host].ports[index]; }
  Process& process(ProcessId id) { return processes_[id]; }
  std::size_t hosts() const { return hosts_.size(); }
  HostId host_named(const std::string& name) const;
  void wake(ProcessId id) { processes_[id].woken = true; }
  // Between the two hosts bytes travel now. A host reaches itself whatever happens to its ports.
  bool joined(HostId a, HostId b) const;

  // ---- faults
  // `announced`: the device says that it is down (Fabric::healthy).
  void cut(HostId host, std::uint32_t port, bool announced);
  void restore(HostId host, std::uint32_t port);
  void slow_down(HostId host, std::uint32_t port, std::uint32_t percent);
  void refuse_posts(HostId host, std::uint32_t port, Nanos duration);
  void isolate(HostId host);
  void rejoin(HostId host);
  // The host stops, with all its processes, and is silent from now on.
  void kill_host(HostId host);
  // The process ends; its host closes its connections.
  void kill_process(ProcessId process);

  // ---- for SimFabric and SimControl
  std::vector<std::shared_ptr<SimFabric>> fabrics;
  std::map<std::pair<std::string, std::uint16_t>, SimControl*> listeners;
  std::vector<std::shared_ptr<Connection>> connections;

  // One end of a path: an index that is never used again.
  struct End {
    std::uint32_t fabric = 0;
    std::uint32_t peer = 0;
    std::uint64_t other = ~std::uint64_t{0};  // after connect_peer
    bool removed = false;
    // Of rails with order:
    bool broken = false;   // everything posted fails
    bool hung = false;     // or never completes
    bool stalled = false;  // its device sends again what met a port that is down
    TimePoint retry_until{};
    TimePoint last_landing{};
    std::vector<std::pair<std::uint32_t, std::uint32_t>> waiting;  // writes and pieces behind the stall
  };
  std::vector<End> ends;

 private:
  struct Item {
    TimePoint when;
    std::uint64_t number;
    std::uint32_t action;
  };
  static bool later(const Item& a, const Item& b) {
    return a.when != b.when ? a.when > b.when : a.number > b.number;
  }

  TimePoint now_;
  Random random_;
  Trace trace_;
  std::uint64_t scheduled_ = 0;
  std::vector<Item> queue_;  // a heap
  std::vector<std::function<void()>> actions_;
  std::vector<std::uint32_t> free_actions_;
  std::vector<Host> hosts_;
  std::vector<Process> processes_;
  std::optional<std::string> violation_;
};

}  // namespace switchyard::sim
