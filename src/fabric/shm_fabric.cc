#include "fabric/shm_fabric.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "base/random.h"
#include "fabric/shm_segment.h"

namespace switchyard::fabric {
namespace {

constexpr std::uint64_t kMaxWriteBytes = 1u << 20;  // of one request, and of one call into the kernel
constexpr std::size_t kMaxVectors = 64;             // requests of one call into the kernel
constexpr std::size_t kCompletions = 256;           // kept between post and poll

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// What stands in the way of process_vm_writev here, or nothing.
std::string obstacle() {
  std::uint64_t from = 1, to = 0;
  iovec local{&from, sizeof from}, remote{&to, sizeof to};
  if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != sizeof from) {
    return fmt::format(
        "process_vm_writev is refused ({}); a container needs a seccomp profile that allows it",
        strerror(errno));
  }
  int scope = 0;
  if (std::ifstream yama("/proc/sys/kernel/yama/ptrace_scope"); yama >> scope && scope >= 2) {
    return fmt::format(
        "/proc/sys/kernel/yama/ptrace_scope is {}; processes may not write to each other above 1", scope);
  }
  return {};
}

// Shared by the rail and its regions, which may outlive it.
struct Home {
  SegmentMapping segment;
  Descriptor memory, pipe_read, pipe_write;
  std::mutex mutex;  // registration only
  std::uint64_t next_region = 0;
};

class ShmMemory final : public LocalMemory {
 public:
  ShmMemory(std::shared_ptr<Home> home, std::uint32_t slot, std::uint64_t address, std::uint64_t key)
      : home_(std::move(home)), slot_(slot), address_(address), key_(key) {}
  ~ShmMemory() override { home_->segment->regions[slot_].key.store(0, std::memory_order_release); }
  std::uint64_t remote_address() const override { return address_; }
  std::uint64_t remote_key() const override { return key_; }

 private:
  std::shared_ptr<Home> home_;
  std::uint32_t slot_;
  std::uint64_t address_, key_;
};

struct Peer {
  bool used = false;
  ShmAddress address;
  SegmentMapping segment;
  Descriptor pipe;
  std::uint32_t ring = 0;  // ours, in the peer's segment
  bool failed = false;     // a write to it, of which poll may not have told yet
};

class ShmFabric final : public Fabric {
 public:
  static Result<std::shared_ptr<Fabric>> open(const FabricOptions& options);
  ~ShmFabric() override { close(); }

  const Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override;
  Result<std::unique_ptr<LocalMemory>> register_memory(const MemoryRange& range) override;
  Result<PathEnd> add_peer(std::span<const std::byte> address) override;
  void remove_peer(PeerId peer) override;
  std::size_t post(PeerId peer, std::span<const WriteRequest> requests) override;
  std::size_t poll(std::span<Completion> completions) override;
  int wait_fd() const override { return closed_ ? -1 : home_->pipe_read.get(); }
  bool prepare_sleep() override;
  std::string describe_error(int error) const override;
  void close() override;

 private:
  int copy(Peer& peer, std::span<const WriteRequest> requests);
  void push(Peer& peer, std::uint32_t immediate);
  bool ring_has_room(const Peer& peer) const;
  void free_rings_of_the_gone();
  void complete(std::uint64_t cookie, int error);

  std::shared_ptr<Home> home_;
  ShmAddress address_;
  Capabilities capabilities_;
  std::vector<Peer> peers_;
  std::vector<Completion> completions_;  // what post finished, until poll takes it
  bool closed_ = false;
};

Result<std::shared_ptr<Fabric>> ShmFabric::open(const FabricOptions& options) {
  if (std::string why = obstacle(); !why.empty())
    return fail(ErrorCode::unsupported, "fabric 'shm': {}", why);
  // Fails where there is no Yama, and then is not needed.
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  auto home = std::make_shared<Home>();
  home->memory = Descriptor(memfd_create("switchyard-rail", MFD_CLOEXEC));
  int ends[2];
  if (home->memory.get() < 0 || ftruncate(home->memory.get(), sizeof(Segment)) != 0 ||
      pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return fail(ErrorCode::exhausted, "fabric 'shm': no shared memory or pipe: {}", strerror(errno));
  }
  home->pipe_read = Descriptor(ends[0]);
  home->pipe_write = Descriptor(ends[1]);
  auto segment = SegmentMapping::map(home->memory.get());
  if (!segment) return pass(segment.error());
  home->segment = std::move(*segment);
  auto self = std::make_shared<ShmFabric>();  // from here on there is something to close
  std::array<std::uint64_t, 2> words{};
  if (auto ok = fill_random(std::as_writable_bytes(std::span(words))); !ok) return pass(ok.error());
  self->address_.nonce = words[0] | 1;  // 0 is nobody's
  self->address_.host = host_identity();
  self->address_.pid = static_cast<std::uint32_t>(getpid());
  self->address_.segment_descriptor = static_cast<std::uint32_t>(home->memory.get());
  self->address_.pipe_descriptor = static_cast<std::uint32_t>(home->pipe_write.get());
  home->segment->magic = kSegmentMagic;
  home->segment->nonce = self->address_.nonce;
  home->segment->self = reinterpret_cast<std::uint64_t>(&*home->segment);
  home->next_region = words[1] >> 16;
  self->home_ = std::move(home);
  self->peers_.resize(std::min(options.max_peers, kMaxRings));
  self->completions_.reserve(kCompletions);
  self->capabilities_ = {.fabric = "shm",
                         .ordered = true,
                         .local = true,
                         .max_write_bytes = kMaxWriteBytes,
                         .max_outstanding = kCompletions,
                         .window = kMaxVectors};
  return std::shared_ptr<Fabric>(std::move(self));
}

std::vector<std::byte> ShmFabric::address() const {
  auto bytes = std::as_bytes(std::span(&address_, 1));
  return {bytes.begin(), bytes.end()};
}

Result<std::unique_ptr<LocalMemory>> ShmFabric::register_memory(const MemoryRange& range) {
  if (range.dmabuf >= 0)
    return fail(ErrorCode::unsupported, "fabric 'shm': device memory is out of its reach");
  std::lock_guard lock(home_->mutex);
  for (std::uint32_t tried = 0; tried < kMaxRegions; ++tried) {
    const std::uint64_t number = ++home_->next_region;
    const auto slot = static_cast<std::uint32_t>(number % kMaxRegions);
    SharedRegion& region = home_->segment->regions[slot];
    if (region.key.load(std::memory_order_relaxed) != 0) continue;
    region.address.store(reinterpret_cast<std::uint64_t>(range.base), std::memory_order_relaxed);
    region.bytes.store(range.bytes, std::memory_order_relaxed);
    region.key.store(number, std::memory_order_release);
    return std::make_unique<ShmMemory>(home_, slot, reinterpret_cast<std::uint64_t>(range.base), number);
  }
  return fail(ErrorCode::exhausted, "fabric 'shm': {} regions are the limit", kMaxRegions);
}

Result<PathEnd> ShmFabric::add_peer(std::span<const std::byte> bytes) {
  ShmAddress address;
  if (bytes.size() != sizeof address)
    return fail(ErrorCode::corrupt, "fabric 'shm': {} bytes are not an address", bytes.size());
  std::memcpy(&address, bytes.data(), sizeof address);
  if (address.magic != kSegmentMagic || address.nonce == 0)
    return fail(ErrorCode::corrupt, "fabric 'shm': not an address");
  if (address.host != address_.host) {
    return fail(ErrorCode::unsupported,
                "fabric 'shm': the peer is on another host or in another PID namespace; choose fabric net");
  }
  auto free = std::find_if(peers_.begin(), peers_.end(), [](const Peer& peer) { return !peer.used; });
  if (free == peers_.end())
    return fail(ErrorCode::exhausted, "fabric 'shm': {} peers are the limit", peers_.size());

  auto open_of_peer = [&](std::uint32_t descriptor, int flags) {
    return Descriptor(
        ::open(fmt::format("/proc/{}/fd/{}", address.pid, descriptor).c_str(), flags | O_CLOEXEC));
  };
  Descriptor memory = open_of_peer(address.segment_descriptor, O_RDWR);
  Descriptor pipe = open_of_peer(address.pipe_descriptor, O_WRONLY | O_NONBLOCK);
  if (memory.get() < 0 || pipe.get() < 0) {
    const int why = errno;
    // What there is too little of now may be there later.
    if (why == EMFILE || why == ENFILE || why == ENOMEM) {
      return fail(ErrorCode::exhausted, "fabric 'shm': the shared memory of process {} cannot be opened: {}",
                  address.pid, strerror(why));
    }
    return fail(why == ENOENT ? ErrorCode::peer_lost : ErrorCode::unsupported,
                "fabric 'shm': the shared memory of process {} cannot be opened: {}; both need the same user",
                address.pid, strerror(why));
  }
  auto segment = SegmentMapping::map(memory.get());
  if (!segment) return pass(segment.error());
  Segment& theirs = **segment;
  if (theirs.magic != kSegmentMagic || theirs.nonce != address.nonce) {
    return fail(ErrorCode::peer_lost, "fabric 'shm': process {} is another one now", address.pid);
  }
  std::uint64_t probe = 0;
  iovec local{&probe, sizeof probe}, remote{reinterpret_cast<void*>(theirs.self), sizeof probe};
  if (process_vm_readv(static_cast<pid_t>(address.pid), &local, 1, &remote, 1, 0) != sizeof probe ||
      probe != kSegmentMagic) {
    return fail(ErrorCode::unsupported, "fabric 'shm': the memory of process {} is not accessible: {}",
                address.pid, strerror(errno));
  }
  free_rings_of_the_gone();
  for (std::uint32_t i = 0; i < kMaxRings; ++i) {
    std::uint64_t nobody = 0;
    if (!theirs.rings[i].owner.compare_exchange_strong(nobody, address_.nonce, std::memory_order_acq_rel))
      continue;
    theirs.rings[i].owner_pid.store(address_.pid, std::memory_order_release);
    free->used = true;
    free->address = address;
    free->segment = std::move(*segment);
    free->pipe = std::move(pipe);
    free->ring = i;
    free->failed = false;
    return PathEnd{.peer = static_cast<PeerId>(free - peers_.begin())};
  }
  return fail(ErrorCode::exhausted, "fabric 'shm': process {} has {} writers, the limit", address.pid,
              kMaxRings);
}

void ShmFabric::remove_peer(PeerId id) {
  Peer& peer = peers_[id];
  if (!peer.used) return;
  // Our ring over there stays until its reader has emptied it.
  peer.segment->rings[peer.ring].owner_pid.store(kGonePid, std::memory_order_release);
  // Their ring here: what they have written still counts; what they would write from now on does not.
  const bool closed = peer.segment->closed.load(std::memory_order_acquire) != 0;
  for (SharedRing& ring : home_->segment->rings) {
    if (ring.owner.load(std::memory_order_acquire) != peer.address.nonce) continue;
    if (closed) ring.owner_pid.store(kGonePid, std::memory_order_release);
    ring.owner.store(kRevoked, std::memory_order_release);
  }
  peer.segment = SegmentMapping();
  peer.pipe = Descriptor();
  peer.used = false;
  free_rings_of_the_gone();
}

void ShmFabric::free_rings_of_the_gone() {
  for (SharedRing& ring : home_->segment->rings) {
    const std::uint32_t pid = ring.owner_pid.load(std::memory_order_acquire);
    if (pid == 0) continue;
    if (pid != kGonePid && (kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH)) continue;
    if (ring.head.load(std::memory_order_relaxed) != ring.tail.load(std::memory_order_acquire)) continue;
    ring.owner_pid.store(0, std::memory_order_relaxed);
    ring.owner.store(0, std::memory_order_release);
  }
}

bool ShmFabric::ring_has_room(const Peer& peer) const {
  const SharedRing& ring = peer.segment->rings[peer.ring];
  return ring.tail.load(std::memory_order_relaxed) - ring.head.load(std::memory_order_acquire) < kRingEntries;
}

void ShmFabric::push(Peer& peer, std::uint32_t immediate) {
  SharedRing& ring = peer.segment->rings[peer.ring];
  const std::uint32_t tail = ring.tail.load(std::memory_order_relaxed);
  ring.entries[tail % kRingEntries].store(immediate, std::memory_order_relaxed);
  ring.tail.store(tail + 1, std::memory_order_release);
  // Sequentially consistent against prepare_sleep: either we see it asleep, or it sees our bit.
  peer.segment->pending[peer.ring / 64].fetch_or(std::uint64_t{1} << (peer.ring % 64));
  if (peer.segment->asleep.load() != 0 && peer.segment->asleep.exchange(0) != 0) {
    const char ring_it = 1;
    // A full pipe wakes as well; a closed one belongs to a peer that is gone.
    [[maybe_unused]] const ssize_t written = ::write(peer.pipe.get(), &ring_it, 1);
  }
}

// Copies a run of requests in one call. Returns 0 or an error number.
int ShmFabric::copy(Peer& peer, std::span<const WriteRequest> requests) {
  std::array<iovec, kMaxVectors> local, remote;
  std::size_t count = 0;
  std::uint64_t total = 0;
  for (const WriteRequest& request : requests) {
    if (request.bytes == 0) continue;
    local[count] = {const_cast<std::byte*>(request.source), request.bytes};
    remote[count] = {reinterpret_cast<void*>(request.target_address), request.bytes};
    total += request.bytes;
    ++count;
  }
  if (count == 0) return 0;
  const ssize_t written =
      process_vm_writev(static_cast<pid_t>(peer.address.pid), local.data(), count, remote.data(), count, 0);
  if (written == static_cast<ssize_t>(total)) return 0;
  // A short count means that the next page of the target, or of the source, is not there.
  return written < 0 ? errno : EFAULT;
}

void ShmFabric::complete(std::uint64_t cookie, int error) {
  completions_.push_back({.kind = error == 0 ? Completion::Kind::delivered : Completion::Kind::failed,
                          .refused = error == EACCES || error == EFAULT,
                          .error = error,
                          .cookie = cookie});
}

std::size_t ShmFabric::post(PeerId id, std::span<const WriteRequest> requests) {
  Peer& peer = peers_[id];
  // What comes after a failed write would land out of order, and its immediate announce what is not there. So
  // nothing is taken until the caller has been told, who knows what depends on what.
  if (peer.failed && !completions_.empty()) return 0;
  peer.failed = false;
  std::size_t taken = 0;
  while (!peer.failed && taken < requests.size() && completions_.size() + kMaxVectors <= kCompletions) {
    // A run: what one call copies, up to and including the first immediate.
    std::size_t count = 0;
    std::uint64_t bytes = 0;
    int error = 0;
    while (taken + count < requests.size() && count < kMaxVectors) {
      const WriteRequest& request = requests[taken + count];
      if (count != 0 && bytes + request.bytes > kMaxWriteBytes) break;
      if (request.has_immediate && !ring_has_room(peer)) break;
      if (request.bytes != 0) {
        const SharedRegion& region = peer.segment->regions[request.target_key % kMaxRegions];
        const std::uint64_t base = region.address.load(std::memory_order_relaxed);
        const std::uint64_t size = region.bytes.load(std::memory_order_relaxed);
        if (region.key.load(std::memory_order_acquire) != request.target_key ||
            request.target_address < base || request.bytes > size ||
            request.target_address - base > size - request.bytes) {
          error = EACCES;
        }
      }
      ++count;
      bytes += request.bytes;
      if (request.has_immediate || error != 0) break;
    }
    if (count == 0) break;
    auto run = requests.subspan(taken, count);
    if (peer.segment->rings[peer.ring].owner.load(std::memory_order_acquire) != address_.nonce) {
      // Forgotten by this peer: nothing may land there any more.
      for (const WriteRequest& request : run) complete(request.cookie, ECONNRESET);
      peer.failed = true;
    } else {
      const auto sound = error == 0 ? run : run.first(count - 1);
      int copied = copy(peer, sound);
      if (copied == 0 && error == 0 && run.back().has_immediate) {
        push(peer, run.back().immediate);
        // This process may have stood still since the question above; what comes after the peer has forgotten
        // it does not count there, and must not be reported as delivered here.
        if (peer.segment->rings[peer.ring].owner.load() != address_.nonce) copied = ECONNRESET;
      }
      for (const WriteRequest& request : sound) complete(request.cookie, copied);
      if (error != 0) complete(run.back().cookie, error);
      peer.failed = copied != 0 || error != 0;
    }
    taken += count;
  }
  return taken;
}

std::size_t ShmFabric::poll(std::span<Completion> out) {
  std::size_t count = 0;
  if (!completions_.empty()) {
    count = std::min(out.size(), completions_.size());
    std::copy_n(completions_.begin(), count, out.begin());
    completions_.erase(completions_.begin(), completions_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  Segment& segment = *home_->segment;
  for (std::size_t word = 0; word < segment.pending.size(); ++word) {
    if (segment.pending[word].load(std::memory_order_relaxed) == 0) continue;
    std::uint64_t bits = segment.pending[word].exchange(0);
    while (bits != 0) {
      const auto bit = static_cast<std::uint32_t>(std::countr_zero(bits));
      bits &= bits - 1;
      SharedRing& ring = segment.rings[word * 64 + bit];
      std::uint32_t head = ring.head.load(std::memory_order_relaxed);
      const std::uint32_t tail = ring.tail.load(std::memory_order_acquire);
      // More than the ring holds is nonsense that only a broken peer writes: skip it.
      if (tail - head > kRingEntries) head = tail;
      for (; head != tail && count < out.size(); ++head) {
        out[count++] = {.kind = Completion::Kind::arrived,
                        .immediate = ring.entries[head % kRingEntries].load(std::memory_order_relaxed)};
      }
      ring.head.store(head, std::memory_order_release);
      if (head != tail) segment.pending[word].fetch_or(std::uint64_t{1} << bit);
    }
  }
  return count;
}

bool ShmFabric::prepare_sleep() {
  if (!completions_.empty()) return false;
  // Empty the pipe, then say so, then look once more.
  char sink[64];
  while (::read(home_->pipe_read.get(), sink, sizeof sink) == sizeof sink) {
  }
  Segment& segment = *home_->segment;
  segment.asleep.store(1);
  for (auto& word : segment.pending) {
    if (word.load() == 0) continue;
    segment.asleep.store(0);
    return false;
  }
  return true;
}

std::string ShmFabric::describe_error(int error) const {
  switch (error) {
    case EACCES:
      return "the target's region is not registered any more, or the key is wrong";
    case EFAULT:
      return "a page of the source or the target is not mapped";
    case ESRCH:
      return "the target's process is gone";
    case ECONNRESET:
      return "the target has closed the connection";
    default:
      return strerror(error);
  }
}

void ShmFabric::close() {
  if (closed_) return;
  home_->segment->closed.store(1, std::memory_order_release);
  closed_ = true;
  for (PeerId id = 0; id < peers_.size(); ++id) remove_peer(id);
}

}  // namespace

Result<std::shared_ptr<Fabric>> open_shm_fabric(const FabricOptions& options) {
  return ShmFabric::open(options);
}

FabricReport probe_shm_fabric() {
  FabricReport report{.name = "shm", .detail = obstacle()};
  report.usable = report.detail.empty();
  if (report.usable) report.detail = "shared memory between processes of one user on this host, one copy";
  return report;
}

}  // namespace switchyard::fabric
