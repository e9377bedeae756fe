#include "post_bench.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "fabric/fabric.h"
#include "memory/arena.h"
#include "transfer/control_channel.h"
#include "transfer/engine_core.h"

namespace switchyard::bench {
namespace {

constexpr Nanos kLimit = std::chrono::minutes(10);  // under a profiler everything is slow
constexpr std::uint64_t kPageBytes = 64;
constexpr std::uint32_t kDepth = 16;  // transfers under way

class NullMemory final : public fabric::LocalMemory {
 public:
  explicit NullMemory(const void* base) : base_(base) {}
  std::uint64_t remote_address() const override { return reinterpret_cast<std::uint64_t>(base_); }
  std::uint64_t remote_key() const override { return 1; }

 private:
  const void* base_;
};

// Delivers every write at once: immediates and the bytes of those that carry no payload (the records by which
// the engine counts), but no payload.
class NullRail final : public fabric::Fabric {
 public:
  explicit NullRail(bool ordered)
      : capabilities_{.fabric = "null",
                      .ordered = ordered,
                      .max_write_bytes = 1u << 30,
                      .max_outstanding = kRing,
                      .window = 64} {}
  const fabric::Capabilities& capabilities() const override { return capabilities_; }
  std::vector<std::byte> address() const override { return std::vector<std::byte>(8); }
  Result<std::unique_ptr<fabric::LocalMemory>> register_memory(const fabric::MemoryRange& range) override {
    return std::make_unique<NullMemory>(range.base);
  }
  Result<fabric::PathEnd> add_peer(std::span<const std::byte>) override { return fabric::PathEnd{}; }
  void remove_peer(fabric::PeerId) override {}
  void join(NullRail& other) { other_ = &other; }
  std::size_t post(fabric::PeerId, std::span<const fabric::WriteRequest> requests) override {
    std::size_t taken = 0;
    for (; taken < requests.size() && delivered_.has_room() && other_->arrived_.has_room(); ++taken) {
      const fabric::WriteRequest& request = requests[taken];
      if (request.bytes > 0 && request.bytes < kPageBytes)  // a proof of a path has no source
        std::memcpy(reinterpret_cast<void*>(request.target_address), request.source, request.bytes);
      delivered_.push({.cookie = request.cookie});
      if (request.has_immediate) {
        other_->arrived_.push({.kind = fabric::Completion::Kind::arrived, .immediate = request.immediate});
      }
    }
    return taken;
  }
  std::size_t poll(std::span<fabric::Completion> completions) override {
    std::size_t count = 0;
    for (Ring* ring : {&delivered_, &arrived_}) {
      while (count < completions.size() && !ring->empty()) completions[count++] = ring->pop();
    }
    return count;
  }
  std::string describe_error(int) const override { return "none"; }
  void close() override {}

 private:
  static constexpr std::uint32_t kRing = 1024;
  struct Ring {
    std::array<fabric::Completion, kRing> entries;
    std::uint32_t head = 0, tail = 0;
    bool has_room() const { return tail - head < kRing; }
    bool empty() const { return head == tail; }
    void push(const fabric::Completion& completion) { entries[tail++ % kRing] = completion; }
    const fabric::Completion& pop() { return entries[head++ % kRing]; }
  };
  fabric::Capabilities capabilities_;
  Ring delivered_, arrived_;
  NullRail* other_ = nullptr;
};

Result<std::shared_ptr<EngineCore>> open(const char* name, std::shared_ptr<NullRail> rail, std::uint64_t id) {
  EngineOptions options;
  options.name = name;
  // Nothing may look broken because a profiler makes everything slow.
  options.heartbeat_limit = options.stall_limit = kLimit;
  EngineParts parts;
  parts.rails.push_back({"null", "", std::move(rail)});
  auto control = transfer::ControlChannel::open({.host = options.control_host,
                                                 .port = 0,
                                                 .max_links = 4,
                                                 .message_bytes = options.message_bytes,
                                                 .heartbeat_interval = kLimit / 2,
                                                 .heartbeat_limit = kLimit,
                                                 .connect_limit = options.connect_limit});
  if (!control) return pass(control.error());
  parts.control = std::move(*control);
  parts.id = {id, id};
  parts.epoch = id;
  return EngineCore::assemble(options, std::move(parts));
}

class Posting {
 public:
  explicit Posting(const PostBenchOptions& options) : options_(options) {}
  ~Posting() {
    region_ = far_region_ = Region();
    counter_ = Counter();
    for (const auto& core : {near_, far_}) {
      if (!core) continue;
      core->stop_worker();
      const TimePoint end = monotonic_now() + std::chrono::seconds(5);
      while (!core->finished() && monotonic_now() < end) core->step(monotonic_now());
    }
  }

  Status open_both() {
    const auto here = std::make_shared<NullRail>(options_.ordered);
    const auto there = std::make_shared<NullRail>(options_.ordered);
    here->join(*there);
    there->join(*here);
    auto near = open("near", here, 1);
    if (!near) return pass(near.error());
    near_ = std::move(*near);
    auto far = open("far", there, 2);
    if (!far) return pass(far.error());
    far_ = std::move(*far);
    auto memory = Arena::create(2 * kPageBytes * std::max<std::uint64_t>(options_.pages, 4096));
    if (!memory) return pass(memory.error());
    memory_ = std::move(*memory);
    auto region = near_->register_region({memory_.base(), memory_.bytes()});
    auto far_region = far_->register_region({memory_.base(), memory_.bytes()});
    auto counter = far_->make_counter();
    if (!region) return pass(region.error());
    if (!far_region) return pass(far_region.error());
    if (!counter) return pass(counter.error());
    region_ = std::move(*region);
    far_region_ = std::move(*far_region);
    counter_ = std::move(*counter);
    key_ = far_region_.key();
    std::optional<Status> connected;
    if (auto ok = near_->connect(far_->address(), [&](const Status& status) { connected = status; }); !ok)
      return ok;
    const TimePoint end = monotonic_now() + kLimit;
    while (!connected) {
      near_->step(monotonic_now());
      far_->step(monotonic_now());
      if (monotonic_now() > end) return fail(ErrorCode::timed_out, "the two engines do not meet");
    }
    // No two next to each other, or the engine would join them.
    pages_.resize(options_.pages);
    for (std::uint32_t i = 0; i < options_.pages; ++i) pages_[i] = 2 * i;
    std::shuffle(pages_.begin(), pages_.end(), std::mt19937(1));
    return *connected;
  }

  Status run() {
    const std::uint64_t transfers = (options_.writes + options_.pages - 1) / options_.pages;
    std::uint64_t submitted = 0, ended = 0;
    std::optional<Error> error;
    const Done done = [&](const Status& status) {
      ++ended;
      if (!status) error = status.error();
    };
    const TimePoint end = monotonic_now() + kLimit;
    while (ended < transfers && !error) {
      for (; submitted < transfers && submitted - ended < kDepth; ++submitted) {
        if (auto ok = submit(done); !ok) return ok;
      }
      near_->step(monotonic_now());
      // Only counted transfers are anything to the far side.
      if (options_.counter) far_->step(monotonic_now());
      if (monotonic_now() > end) return fail(ErrorCode::timed_out, "the writes do not end");
    }
    if (error) return pass(*error);
    const EngineMetrics metrics = near_->metrics();
    fmt::print("{} transfers of {} pages, {} work requests on an {} rail\n", transfers, options_.pages,
               metrics.rails.front().work_requests, options_.ordered ? "ordered" : "unordered");
    return {};
  }

 private:
  Status submit(const Done& done) {
    SubmitOptions how;
    if (options_.counter) how.counter = counter_.id();
    const auto transfer = options_.pages == 1 ? near_->write({.source = region_,
                                                              .peer = far_->address(),
                                                              .target = key_,
                                                              .bytes = kPageBytes,
                                                              .options = how},
                                                             done)
                                              : near_->write_pages({.source = region_,
                                                                    .source_stride = kPageBytes,
                                                                    .source_pages = pages_,
                                                                    .peer = far_->address(),
                                                                    .target = key_,
                                                                    .target_stride = kPageBytes,
                                                                    .target_pages = pages_,
                                                                    .page_bytes = kPageBytes,
                                                                    .options = how},
                                                                   done);
    if (!transfer) return pass(transfer.error());
    return {};
  }

  const PostBenchOptions options_;
  Arena memory_;
  std::shared_ptr<EngineCore> near_, far_;
  Region region_, far_region_;
  RegionKey key_;
  Counter counter_;
  std::vector<std::uint32_t> pages_;
};

}  // namespace

Status run_post_bench(const PostBenchOptions& options) {
  if (options.writes == 0 || options.pages == 0 || options.pages > PagedWrite::kMaxPages)
    return fail(ErrorCode::invalid, "writes and pages have to be positive");
  Posting posting(options);
  if (auto ok = posting.open_both(); !ok) return ok;
  return posting.run();
}

}  // namespace switchyard::bench
