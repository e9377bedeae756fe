// Nothing here can overflow. The completion queue has room for one entry of every receive and of every write
// that has been taken: a write that succeeds without an entry leaves its place empty, and one that fails has
// one. What poll has no room for goes to `ready_`, which holds as much: a write counts as outstanding, and a
// receive as used, until its completion has been handed out.
//
// A failed entry of the queue is read for its status and its mark alone. It ends the path: writes before it
// are delivered (the queue pair works in order), it has failed, and so has everything after it.
#include "fabric/verbs_fabric.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "fabric/verbs_memory.h"
#include "fabric/verbs_queue_pair.h"
#include "fabric/verbs_receives.h"
#include "fabric/verbs_token.h"
#include "fabric/verbs_watch.h"

namespace switchyard::fabric {
namespace {

constexpr std::uint32_t kOutstanding = 2048;        // writes, all paths together
constexpr std::uint32_t kReceives = 2048;           // immediates that may arrive between two polls
constexpr std::uint32_t kDepth = 256;               // writes of one path
constexpr std::uint32_t kWindow = 64;               // keeps a line of 400 Gb/s busy from 8 KiB on
constexpr std::uint64_t kMaxWriteBytes = 1u << 20;  // longer ones are split: fairness, and room to cancel
constexpr std::uint32_t kPollsPerLook = 1024;       // at the device's events
constexpr int kPostError = 0x10000;  // completion errors above are of errno, not of ibv_wc_status

// The write itself is wrong, and would fail on every path. An operation that the queue pair could not carry
// out, or that the other one found malformed, is not one of these: a port that goes down under a write says
// that, too.
bool is_refusal(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_LEN_ERR:
      return true;
    default:
      return false;
  }
}

// Completions that wait for the next poll, in a ring that is large enough for all there can be.
class ReadyCompletions {
 public:
  void reserve(std::size_t count) { ring_.resize(std::bit_ceil(count)); }
  bool empty() const { return taken_ == added_; }
  void add(const Completion& completion) { ring_[added_++ & (ring_.size() - 1)] = completion; }
  const Completion& take() { return ring_[taken_++ & (ring_.size() - 1)]; }

 private:
  std::vector<Completion> ring_;
  std::size_t added_ = 0, taken_ = 0;
};

class VerbsFabric final : public Fabric {
 public:
  static Result<std::shared_ptr<Fabric>> open(const FabricOptions& options);
  ~VerbsFabric() override { close(); }

  const Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override;
  Result<std::unique_ptr<LocalMemory>> register_memory(const MemoryRange& range) override {
    return VerbsMemory::register_range(device_, range);
  }
  Result<PathEnd> add_peer(std::span<const std::byte> address) override;
  Status connect_peer(PeerId peer, std::span<const std::byte> token) override;
  void remove_peer(PeerId peer) override;
  std::size_t post(PeerId peer, std::span<const WriteRequest> requests) override;
  std::size_t poll(std::span<Completion> completions) override;
  int wait_fd() const override { return watch_ ? watch_->descriptor() : -1; }
  bool prepare_sleep() override;
  bool healthy() const override { return !lost_ && watch_ && watch_->port_is_up(); }
  std::string describe_error(int error) const override;
  void close() override;

 private:
  struct Slot {
    std::unique_ptr<VerbsQueuePair> pair;
    VerbsMark next;          // of the next queue pair that this slot has
    std::uint32_t owed = 0;  // entries that may still come for writes that were given up
  };
  // Where completions go: to the caller while it has room, else to those that wait.
  struct Sink {
    std::span<Completion> room;
    std::size_t count = 0;
  };

  Status open_queues();
  void emit(Sink& sink, const Completion& completion);
  void hand_out(Sink& sink, const Completion& completion);
  void take_entry(Sink& sink, const ibv_wc& entry);
  void give_up(Sink& sink, Slot& slot, int error);
  void drain();
  void look_around();
  void lose(const char* why);

  std::shared_ptr<VerbsDevice> device_;
  FabricOptions options_;
  Capabilities capabilities_;
  // In the order of their making; they go in the opposite one.
  std::unique_ptr<VerbsWatch> watch_;
  VerbsHandle<ibv_cq> queue_{nullptr, nullptr};
  VerbsReceives receives_;
  std::vector<Slot> slots_;  // by PeerId
  ReadyCompletions ready_;
  std::uint32_t depth_ = 0;
  std::uint32_t outstanding_ = 0;  // taken, and not yet handed out as complete
  std::uint32_t owed_ = 0;         // the sum over slots
  std::uint32_t polls_ = 0;
  bool armed_ = false;  // the next entry makes the channel readable
  bool lost_ = false;
};

Result<std::shared_ptr<Fabric>> VerbsFabric::open(const FabricOptions& options) {
  auto device = VerbsDevice::open(options);
  if (!device) return pass(device.error());
  auto self = std::make_shared<VerbsFabric>();
  self->device_ = std::move(*device);
  self->options_ = options;
  if (auto opened = self->open_queues(); !opened)
    return fail_at(fmt::format("fabric 'verbs': {}", self->device_->name), opened.error());
  return std::shared_ptr<Fabric>(std::move(self));
}

Status VerbsFabric::open_queues() {
  const ibv_device_attr& limits = device_->limits;
  const VerbsLibrary& verbs = device_->verbs;
  if (limits.max_srq <= 0 || limits.max_srq_wr <= 0)
    return fail(ErrorCode::unsupported, "it has no shared receive queues");
  const auto entries = static_cast<std::uint32_t>(limits.max_cqe);
  const std::uint32_t receives =
      std::min({kReceives, static_cast<std::uint32_t>(limits.max_srq_wr), entries / 2});
  const std::uint32_t outstanding = std::min(kOutstanding, entries - receives);
  depth_ = std::bit_floor(std::min({kDepth, static_cast<std::uint32_t>(limits.max_qp_wr), outstanding}));

  auto watch = VerbsWatch::open(device_, options_.host);
  if (!watch) return pass(watch.error());
  watch_ = std::move(*watch);
  queue_ = {verbs.create_cq(device_->context.get(), static_cast<int>(outstanding + receives), nullptr,
                            watch_->channel(), 0),
            verbs.destroy_cq};
  if (!queue_) {
    return fail(errno == ENOMEM ? ErrorCode::exhausted : ErrorCode::io,
                "making a completion queue of {} entries failed: {}", outstanding + receives,
                strerror(errno));
  }
  auto made = VerbsReceives::create(*device_, receives, VerbsMark{.slot = VerbsMark::kNoSlot}.pack());
  if (!made) return pass(made.error());
  receives_ = std::move(*made);

  ready_.reserve(outstanding + receives);
  const auto pairs = static_cast<std::uint32_t>(std::max(limits.max_qp, 1));
  slots_.resize(std::min({options_.max_peers, pairs, std::uint32_t{VerbsMark::kNoSlot}}));
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].next.slot = static_cast<std::uint16_t>(i);
  capabilities_ = {
      .fabric = "verbs",
      .ordered = true,
      .local = false,
      .max_write_bytes = std::min<std::uint64_t>(kMaxWriteBytes, device_->port.attributes.max_msg_sz),
      .max_outstanding = outstanding,
      .window = std::min(kWindow, depth_),
      .bytes_per_second = device_->bytes_per_second()};
  return {};
}

std::vector<std::byte> VerbsFabric::address() const {
  const VerbsPort& port = device_->port;
  return encode(VerbsAddress{.ethernet = port.ethernet, .lid = port.attributes.lid, .gid = port.gid});
}

Result<PathEnd> VerbsFabric::add_peer(std::span<const std::byte> address) {
  auto theirs = decode_verbs_address(address);
  if (!theirs) return pass(theirs.error());
  if (theirs->ethernet != device_->port.ethernet) {
    return fail(ErrorCode::unsupported, "fabric 'verbs': the peer's port is {}, {} is {}",
                theirs->ethernet ? "RoCE" : "InfiniBand", device_->name,
                device_->port.ethernet ? "RoCE" : "InfiniBand");
  }
  const auto free = std::find_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return !slot.pair; });
  if (free == slots_.end())
    return fail(ErrorCode::exhausted, "fabric 'verbs': {} paths are the limit", slots_.size());
  auto pair = VerbsQueuePair::create(device_, queue_.get(), receives_.queue(), depth_, free->next);
  if (!pair) return pass(pair.error());
  ++free->next.generation;
  free->pair = std::move(*pair);
  return PathEnd{.peer = static_cast<PeerId>(free - slots_.begin()), .token = encode(free->pair->token())};
}

Status VerbsFabric::connect_peer(PeerId peer, std::span<const std::byte> token) {
  if (peer >= slots_.size() || !slots_[peer].pair)
    return fail(ErrorCode::invalid, "fabric 'verbs': there is no path {}", peer);
  auto theirs = decode_verbs_token(token);
  if (!theirs) return pass(theirs.error());
  if (theirs->address.ethernet != device_->port.ethernet)
    return fail(ErrorCode::corrupt, "fabric 'verbs': the token is of another kind of network");
  return slots_[peer].pair->connect(*theirs);
}

void VerbsFabric::remove_peer(PeerId peer) {
  if (peer >= slots_.size() || !slots_[peer].pair) return;
  Slot& slot = slots_[peer];
  slot.pair->stop();
  // Providers forget what the queue holds of a pair when it is destroyed, immediates that have arrived too;
  // and what comes while it is being destroyed must not stay in the queue, where nothing would count it.
  drain();
  outstanding_ -= slot.pair->unfinished();
  slot.pair.reset();
  drain();
  owed_ -= slot.owed;
  slot.owed = 0;
}

std::size_t VerbsFabric::post(PeerId peer, std::span<const WriteRequest> requests) {
  if (peer >= slots_.size() || !slots_[peer].pair || !slots_[peer].pair->connected()) return 0;
  Slot& slot = slots_[peer];
  std::size_t taken = 0;
  while (taken < requests.size() && !slot.pair->broken()) {
    const std::uint32_t room = capabilities_.max_outstanding - outstanding_ - owed_;
    const auto rest = requests.subspan(taken, std::min<std::size_t>(requests.size() - taken, room));
    int error = 0;
    const std::size_t count = slot.pair->post(rest, error);
    outstanding_ += static_cast<std::uint32_t>(count);
    taken += count;
    if (error != 0) {
      // What was posted before may have asked for no entry: nothing tells of it any more.
      Sink later;
      give_up(later, slot, kPostError | error);
    } else if (count == 0) {
      break;
    }
  }
  // A path that has broken takes writes only to say that they have failed.
  Sink later;
  while (slot.pair->broken() && taken < requests.size() &&
         outstanding_ + owed_ < capabilities_.max_outstanding) {
    ++outstanding_;
    emit(
        later,
        {.kind = Completion::Kind::failed, .error = IBV_WC_WR_FLUSH_ERR, .cookie = requests[taken++].cookie});
  }
  return taken;
}

void VerbsFabric::hand_out(Sink& sink, const Completion& completion) {
  sink.room[sink.count++] = completion;
  if (completion.kind == Completion::Kind::arrived)
    receives_.used();
  else
    --outstanding_;
}

void VerbsFabric::emit(Sink& sink, const Completion& completion) {
  if (sink.count < sink.room.size() && ready_.empty())
    hand_out(sink, completion);
  else
    ready_.add(completion);
}

// Ends all writes of a path that are not finished.
void VerbsFabric::give_up(Sink& sink, Slot& slot, int error) {
  slot.pair->stop();
  while (slot.pair->unfinished() != 0) {
    ++slot.owed;
    ++owed_;
    emit(sink, {.kind = Completion::Kind::failed, .error = error, .cookie = slot.pair->take_oldest()});
  }
}

void VerbsFabric::take_entry(Sink& sink, const ibv_wc& entry) {
  const VerbsMark mark = VerbsMark::unpack(entry.wr_id);
  if (mark.slot == VerbsMark::kNoSlot) {
    if (entry.status == IBV_WC_SUCCESS && (entry.wc_flags & IBV_WC_WITH_IMM) != 0)
      emit(sink, {.kind = Completion::Kind::arrived, .immediate = ntohl(entry.imm_data)});
    else
      receives_.used();  // flushed with its path, or used up by a peer that sends what nobody asked for
    return;
  }
  if (mark.slot >= slots_.size()) return;
  Slot& slot = slots_[mark.slot];
  // Of a path that has been removed, or of a write that has been given up.
  const auto current = static_cast<std::uint16_t>(slot.next.generation - 1);
  if (!slot.pair || mark.generation != current || !slot.pair->is_unfinished(mark.sequence)) return;
  VerbsQueuePair& pair = *slot.pair;
  // A flushed write does not tell whether those before it have been flushed as well.
  const bool earlier_delivered = entry.status != IBV_WC_WR_FLUSH_ERR;
  while (pair.is_unfinished(mark.sequence)) {
    const bool last = pair.oldest() == mark.sequence;
    const std::uint64_t cookie = pair.take_oldest();
    if (last ? entry.status == IBV_WC_SUCCESS : earlier_delivered)
      emit(sink, {.cookie = cookie});
    else
      emit(sink, {.kind = Completion::Kind::failed,
                  .refused = last && is_refusal(entry.status),
                  .error = entry.status,
                  .cookie = cookie});
  }
  if (entry.status != IBV_WC_SUCCESS) give_up(sink, slot, IBV_WC_WR_FLUSH_ERR);
}

std::size_t VerbsFabric::poll(std::span<Completion> completions) {
  Sink sink{.room = completions};
  while (!ready_.empty() && sink.count < sink.room.size()) hand_out(sink, ready_.take());
  std::array<ibv_wc, 32> entries;
  while (sink.count < sink.room.size() && queue_) {
    const int wanted = static_cast<int>(std::min(entries.size(), sink.room.size() - sink.count));
    const int got = ibv_poll_cq(queue_.get(), wanted, entries.data());
    if (got < 0) lose("its completion queue cannot be read");
    for (int i = 0; i < got; ++i) take_entry(sink, entries[static_cast<std::size_t>(i)]);
    if (got < wanted) break;
  }
  if (receives_.wants_refill() && !receives_.refill()) lose("it takes no more receives");
  if (++polls_ % kPollsPerLook == 0) look_around();
  return sink.count;
}

void VerbsFabric::drain() {
  Sink later;
  std::array<ibv_wc, 32> entries;
  for (int got = 1; got > 0 && queue_;) {
    got = ibv_poll_cq(queue_.get(), static_cast<int>(entries.size()), entries.data());
    for (int i = 0; i < got; ++i) take_entry(later, entries[static_cast<std::size_t>(i)]);
  }
}

bool VerbsFabric::prepare_sleep() {
  if (!queue_ || !ready_.empty()) return false;
  look_around();
  if (lost_) return ready_.empty();
  if (watch_->take_bell(queue_.get())) armed_ = false;
  if (!armed_) {
    if (ibv_req_notify_cq(queue_.get(), 0) != 0) return false;
    armed_ = true;
  }
  // What came before it was armed rings no bell.
  drain();
  return ready_.empty();
}

void VerbsFabric::look_around() {
  if (!watch_) return;
  watch_->read();
  if (watch_->loss() != nullptr) lose(watch_->loss());
}

void VerbsFabric::lose(const char* why) {
  if (lost_) return;
  lost_ = true;
  log::error("fabric 'verbs': {}: {}; its paths are lost", device_->name, why);
  Sink later;
  for (Slot& slot : slots_)
    if (slot.pair) give_up(later, slot, IBV_WC_FATAL_ERR);
}

std::string VerbsFabric::describe_error(int error) const {
  if ((error & kPostError) != 0) return fmt::format("posting failed: {}", strerror(error & ~kPostError));
  switch (error) {
    case IBV_WC_REM_ACCESS_ERR:
      return "the target's region is not registered any more, or the key is wrong";
    case IBV_WC_RETRY_EXC_ERR:
      return "the target does not answer";
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return "the target does not take immediates off its queue";
    case IBV_WC_WR_FLUSH_ERR:
      return "the path broke before";
    default:
      return device_->verbs.status_text(static_cast<ibv_wc_status>(error));
  }
}

void VerbsFabric::close() {
  for (Slot& slot : slots_) slot.pair.reset();
  receives_ = {};
  if (queue_) watch_->take_bell(queue_.get());
  queue_.reset();
  watch_.reset();
}

}  // namespace

Result<std::shared_ptr<Fabric>> open_verbs_fabric(const FabricOptions& options) {
  return VerbsFabric::open(options);
}

}  // namespace switchyard::fabric
