// One rail: a network port, or its software stand-in, behind a small contract. Backends: `shm` (processes of
// one host, shm_fabric.cc), `verbs` (RDMA devices, verbs_fabric.cc), libfabric (ofi_fabric.cc), and whatever
// implements Fabric.
//
// The contract, in the order of a rail's life:
//   open_fabric      opens the endpoint and its completion queue
//   address          what a peer needs to reach it; travels over the control channel
//   register_memory  makes memory readable for this rail and writable for peers that hold its key
//   add_peer         makes this side's end of a path to a rail of a peer; its token goes to the other side
//   connect_peer     joins the end with the other side's token: from now on writes may be posted; whether they get
//                    through is for the caller to find out
//   remove_peer      forgets the end, whatever state it is in
//   post             starts writes; takes as many as it has room for
//   poll             hands out what has finished here and what has arrived from peers
//   prepare_sleep    says whether the caller may sleep on wait_fd() until something happens
//   close            stops the endpoint; after it returns nothing is read, written or called any more
//
// Rules: writes are not ordered among each other unless Capabilities say so. `delivered` means that every
// byte is visible to the target's CPU; an immediate arrives after the bytes of its own write. A write that
// was taken ends in exactly one completion (delivered or failed), unless its peer is removed first: then its
// completion may come late or never. Once both sides have removed their ends of a path, nothing that was
// posted on it lands any more; what has landed is reported by the polls that follow. All but the simulated
// rail keep it out as soon as the target alone has removed its end: a peer that stands still cannot remove
// its own. The word of a completion about sizes is never used.
//
// Threads: register_memory and the destruction of a LocalMemory may happen on any thread; everything else on
// the one thread that drives the rail. post and poll do not allocate, lock or log on their way (libfabric
// may).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::fabric {

using PeerId = std::uint32_t;

struct Capabilities {
  std::string fabric;  // its name, as it was asked for
  // Writes on one path land in the order of posting, and so do their immediates; behind one that fails
  // nothing lands before poll has told of the failure. Where this is false the caller posts an immediate when
  // all other writes have been delivered.
  bool ordered = false;
  bool local = false;  // reaches peers on this host only, faster than a network does
  std::uint64_t max_write_bytes = 0;   // of one WriteRequest
  std::uint32_t max_outstanding = 0;   // writes taken and not yet completed, all peers together
  std::uint32_t window = 0;            // writes outstanding on one path that keep it busy
  std::uint64_t bytes_per_second = 0;  // of the line; 0 where it is not known
};

// Memory to register: of the host, or of a device when `dmabuf` names it.
struct MemoryRange {
  void* base = nullptr;  // virtual address
  std::size_t bytes = 0;
  int dmabuf = -1;  // descriptor of a DMA-BUF that holds the range, borrowed for the call; -1: host memory
  std::uint64_t dmabuf_offset = 0;  // of `base` in it
};

// Memory that this rail knows. Unregisters when it goes.
class LocalMemory {
 public:
  virtual ~LocalMemory() = default;
  // What peers name it by: the remote address of its first byte, and the key.
  virtual std::uint64_t remote_address() const = 0;
  virtual std::uint64_t remote_key() const = 0;
};

struct WriteRequest {
  const std::byte* source = nullptr;
  const LocalMemory* source_memory = nullptr;
  std::uint64_t bytes = 0;  // 0 is allowed: only the immediate travels; the target is valid all the same
  std::uint64_t target_address = 0;
  std::uint64_t target_key = 0;
  bool has_immediate = false;
  std::uint32_t immediate = 0;
  std::uint64_t cookie = 0;  // comes back in the completion; the caller's, of any value
};

struct Completion {
  enum class Kind : std::uint8_t {
    delivered,  // the write with this cookie
    failed,     // the write with this cookie; some of its bytes may have landed
    arrived,    // an immediate from some peer
  };
  Kind kind = Kind::delivered;
  // For failed: the target refuses this write for good (a key that is not valid, an address outside of it);
  // otherwise the path has broken, and another may carry the write.
  bool refused = false;
  std::uint32_t immediate = 0;
  int error = 0;  // for failed, the backend's own number
  std::uint64_t cookie = 0;
};

// One end of a path.
struct PathEnd {
  static constexpr std::size_t kMaxTokenBytes = 256;
  PeerId peer = 0;
  std::vector<std::byte> token;  // for the other side's connect_peer; empty where it needs none
};

class Fabric {
 public:
  virtual ~Fabric() = default;

  virtual const Capabilities& capabilities() const = 0;
  virtual std::vector<std::byte> address() const = 0;

  // Errors: invalid, exhausted, io, unsupported (no such memory here).
  virtual Result<std::unique_ptr<LocalMemory>> register_memory(const MemoryRange& range) = 0;

  // Errors: corrupt (not an address of this fabric), unsupported (not reachable from here), exhausted,
  // peer_lost, io. Several ends to one address may exist.
  virtual Result<PathEnd> add_peer(std::span<const std::byte> address) = 0;
  // Errors: corrupt (not a token), io.
  virtual Status connect_peer(PeerId peer, std::span<const std::byte> token) {
    static_cast<void>(peer);
    static_cast<void>(token);
    return {};
  }
  virtual void remove_peer(PeerId peer) = 0;

  // Takes the first n of the requests and returns n. Fewer than all: no room now, poll and try again.
  virtual std::size_t post(PeerId peer, std::span<const WriteRequest> requests) = 0;
  virtual std::size_t poll(std::span<Completion> completions) = 0;

  // Becomes readable when there is something to poll; -1 where the fabric has no such thing.
  virtual int wait_fd() const { return -1; }
  // True when nothing is pending and whatever comes from now on makes wait_fd() readable (always false
  // without one).
  virtual bool prepare_sleep() { return false; }

  // False while the port is down: all its paths are as good as broken. Cheap.
  virtual bool healthy() const { return true; }

  // Text for the error of a failed completion.
  virtual std::string describe_error(int error) const = 0;

  virtual void close() = 0;
};

struct FabricOptions {
  std::string host = "127.0.0.1";  // local address of rails that have one
  // Of rails that are devices: "NAME[:PORT[:GID_INDEX]]", as "mlx5_0" or "mlx5_0:1:3"; empty: one whose
  // address is `host`, else the first.
  std::string device;
  std::uint32_t max_peers = 512;
};

// `name` is "shm", "verbs", or a provider of libfabric ("net", "tcp;ofi_rxm", "efa").
// Errors: unsupported (with the reason), io.
Result<std::shared_ptr<Fabric>> open_fabric(const std::string& name, const FabricOptions& options);

// One line of `switchyard doctor`.
struct FabricReport {
  std::string name;
  bool usable = false;
  std::string detail;  // what it reaches and how, or why it is not usable
};

// Every fabric that this build knows, with a word why not where one does not work here. Takes milliseconds.
std::vector<FabricReport> list_fabrics(const std::string& host = "127.0.0.1");

// Names, as FabricOptions.device takes them, of every device that a rail of this fabric can use right now: active
// ports with an address. Empty for fabrics that are not made of devices.
std::vector<std::string> list_devices(const std::string& fabric);

// What "auto" means at `host`: shared memory when it works and `host` is a loopback address, so that all
// peers are on this host; else the best network found. Errors: unsupported.
Result<std::string> automatic_fabric(const std::string& host = "127.0.0.1");

}  // namespace switchyard::fabric
