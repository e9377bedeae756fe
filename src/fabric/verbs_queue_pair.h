// One reliable connection: the end of a path. Knows which of its writes the device has not finished yet.
//
// A queue pair finishes its writes in the order of posting, so only some ask for an entry in the completion
// queue: the last of each post, and one of every kSignalEvery. An entry stands for all writes before it;
// their cookies wait in a ring. Owned by the rail and driven by its thread; post and complete do not
// allocate.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fabric/verbs_device.h"
#include "fabric/verbs_token.h"

namespace switchyard::fabric {

// The mark of a write in the completion queue: which slot, which of the queue pairs that the slot has had,
// and which of its writes.
struct VerbsMark {
  std::uint16_t generation = 0;
  std::uint16_t slot = 0;
  std::uint32_t sequence = 0;

  static constexpr std::uint16_t kNoSlot = 0xffff;  // of receives
  std::uint64_t pack() const {
    return std::uint64_t{generation} << 48 | std::uint64_t{slot} << 32 | sequence;
  }
  static VerbsMark unpack(std::uint64_t word) {
    return {static_cast<std::uint16_t>(word >> 48), static_cast<std::uint16_t>(word >> 32),
            static_cast<std::uint32_t>(word)};
  }
};

class VerbsQueuePair {
 public:
  static constexpr std::uint32_t kSignalEvery = 16;
  static constexpr std::size_t kMaxChain = 32;  // writes that are handed to the device at once

  // In state INIT: bound to its port, not yet to a peer. `mark` is of its first write. Errors: exhausted, io.
  static Result<std::unique_ptr<VerbsQueuePair>> create(std::shared_ptr<VerbsDevice> device,
                                                        ibv_cq* completions, ibv_srq* receives,
                                                        std::uint32_t depth, VerbsMark mark);

  VerbsToken token() const;
  // Errors: io (with what to look at).
  Status connect(const VerbsToken& peer);
  // The device forgets what it has not sent, and takes nothing that arrives. Idempotent.
  void stop();

  bool connected() const { return connected_; }
  bool broken() const { return broken_; }
  std::uint32_t room() const { return depth_ - unfinished(); }
  std::uint32_t unfinished() const { return posted_ - finished_; }

  // Hands at most kMaxChain writes, and no more than there is room for, to the device. Returns how many it
  // took; sets `error` to an error number where it refused the next one.
  std::size_t post(std::span<const WriteRequest> requests, int& error);

  // Whether this is a write that is not finished.
  bool is_unfinished(std::uint32_t sequence) const { return sequence - finished_ < unfinished(); }
  std::uint32_t oldest() const { return finished_; }
  // The oldest write is finished.
  std::uint64_t take_oldest() { return cookies_[finished_++ % depth_]; }

 private:
  VerbsQueuePair() = default;
  bool move(ibv_qp_attr& attributes, int mask);

  std::shared_ptr<VerbsDevice> device_;
  VerbsHandle<ibv_qp> pair_{nullptr, nullptr};
  VerbsMark mark_;
  std::uint32_t first_packet_ = 0;
  std::uint32_t depth_ = 0;  // a power of two
  std::uint32_t inline_bytes_ = 0;
  std::uint32_t posted_ = 0;    // sequence of the next write
  std::uint32_t finished_ = 0;  // sequence of the oldest that is not finished
  std::vector<std::uint64_t> cookies_;
  bool connected_ = false;
  bool broken_ = false;
};

}  // namespace switchyard::fabric
