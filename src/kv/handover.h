// Hand-over of one request's KV from the instance that computed it to the one that decodes, layer by layer.
//
// The receiver reserves blocks, arms a counter with transfer_count(), and sends a Destination. The sender
// computes in chunks of Destination::chunk_tokens; whenever a layer of a chunk is in its blocks it submits
// one paged write for it, while the next layer computes. The counter reaches its target when everything has
// landed, in whatever order: there is no "done" message.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/bytes.h"
#include "memory/block_pool.h"
#include "switchyard/transfer.h"

namespace switchyard::kv {

// A block is layers * layer_bytes bytes from block_offset(block) on: one page per layer.
struct Shape {
  std::uint32_t layers = 0;
  std::uint32_t block_tokens = 0;
  std::uint64_t layer_bytes = 0;

  std::uint64_t block_bytes() const { return layers * layer_bytes; }
  friend bool operator==(const Shape&, const Shape&) = default;
  static auto fields(auto& self) { return std::tie(self.layers, self.block_tokens, self.layer_bytes); }
};

struct Destination {
  RegionKey pool;
  std::vector<BlockId> blocks;  // in the receiver's pool
  CounterId counter;
  std::uint32_t tokens = 0;        // whose KV is handed over
  std::uint32_t chunk_tokens = 0;  // a whole number of blocks

  void write_to(ByteWriter& writer) const;
  // Errors: corrupt.
  static Result<Destination> read_from(ByteReader& reader);
};

inline std::uint32_t chunk_count(std::uint32_t tokens, std::uint32_t chunk_tokens) {
  return (tokens + chunk_tokens - 1) / chunk_tokens;
}

// Transfers that a hand-over becomes: what the counter expects.
inline std::uint64_t transfer_count(const Shape& shape, std::uint32_t tokens, std::uint32_t chunk_tokens) {
  return std::uint64_t{shape.layers} * chunk_count(tokens, chunk_tokens);
}

struct PushSource {
  Region pool;
  std::vector<BlockId> blocks;
};

struct PushReport {
  std::uint64_t bytes = 0;
  Nanos busy{};     // at least one transfer was under way
  Nanos exposed{};  // of that, after the last layer was computed: what a client waits for
};

// The sending side of one hand-over. layer_done() and cancel() may be called from any thread; callbacks run
// on the engine's worker. Nothing blocks: what the engine has no room for waits here, bounded by
// transfer_count(). The engine must outlive the push's callbacks, which it does by ending every operation.
class Push : public std::enable_shared_from_this<Push> {
 public:
  // Once: everything has landed, or the first error, when no transfer is under way any more.
  using Finished = std::function<void(const Status&, const PushReport&)>;

  // Errors: invalid, out_of_range (the destination does not fit the source or its own keys).
  static Result<std::shared_ptr<Push>> create(TransferEngine& engine, const Shape& shape, PushSource source,
                                              PeerAddress peer, Destination destination, TimePoint deadline,
                                              Finished finished);

  // `layer` of the tokens [chunk * chunk_tokens, ...) is in the source's blocks. Each pair once.
  void layer_done(std::uint32_t layer, std::uint32_t chunk);
  // Stops submitting. `drained` comes once no byte of this push lands any more; Finished comes before it,
  // with cancelled, unless it had come already.
  void cancel(std::function<void()> drained);

  const PeerAddress& peer() const { return peer_; }

 private:
  struct Item {
    std::uint32_t layer;
    std::uint32_t chunk;
  };
  static constexpr std::size_t kMaxActive = 64;  // transfers of one push that the engine has at a time

  Push(TransferEngine& engine, const Shape& shape, PushSource source, PeerAddress peer,
       Destination destination, TimePoint deadline, Finished finished);
  void enqueue(Item item);
  void submit_waiting();  // holds mutex_
  Result<Transfer> submit(const Item& item, std::uint64_t serial);
  void transfer_done(std::uint64_t serial, std::uint64_t bytes, const Status& status);
  void finish_if_over(std::unique_lock<std::mutex>& lock);

  TransferEngine& engine_;
  const Shape shape_;
  const PushSource source_;
  const PeerAddress peer_;
  const Destination destination_;
  const TimePoint deadline_;

  struct Active {
    std::uint64_t serial;
    Transfer transfer;
  };

  std::mutex mutex_;
  Finished finished_;
  std::deque<Item> waiting_;
  std::vector<Active> active_;
  std::vector<Transfer> failed_;  // may still be draining
  std::uint64_t next_serial_ = 1;
  std::uint64_t computed_ = 0;  // items that came
  std::uint64_t landed_ = 0;
  Status failure_;
  bool cancelled_ = false;
  PushReport report_;
  TimePoint busy_since_{};
  TimePoint computed_at_ = TimePoint::max();
};

}  // namespace switchyard::kv
