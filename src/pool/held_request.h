// What an instance knows of one request, from Introduce until it is forgotten.
//
// Owned by Requests; used on the instance's loop alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kv/handover.h"
#include "model/config.h"
#include "pool/channel.h"
#include "pool/orders.h"

namespace switchyard::pool {

class Job;

struct HeldRequest {
  enum class Stage : std::uint8_t {
    introduced,  // holds nothing
    wanting,     // waits for blocks
    filling,     // a peer or the mover writes into its blocks
    computing,   // a prefill job does
    ready,       // its KV is here and rests, or a decode job steps it
    leaving,     // nothing is computed any more; its KV goes elsewhere and it is forgotten then
    draining,    // over; waits until nothing of it moves any more
  };
  // What the dispatcher hears when it has drained.
  enum class Ending : std::uint8_t { silent, lost, released };

  std::uint64_t serial = 0;
  Stage stage = Stage::introduced;
  Introduce what;                     // without prompt and output,
  std::vector<std::int32_t> history;  // which are here
  std::size_t prompt_tokens = 0;
  bool checked = false;  // fits its model

  std::vector<BlockId> blocks;
  // Tokens whose KV is in the blocks; nothing: all but the last, once the dispatcher has said which that is.
  std::optional<std::uint32_t> kv_tokens = 0;
  Job* job = nullptr;
  std::deque<std::function<void()>> deferred;  // orders for when its KV is here

  // wanting
  std::uint32_t wanted = 0;
  TimePoint want_until{};
  std::function<void()> then;

  // A peer writes.
  Counter counter;
  std::optional<PeerKey> writer;
  bool writer_over = false;  // nothing of the writer's lands any more

  // It is written elsewhere.
  std::shared_ptr<kv::Push> push;
  std::vector<BlockId> host_blocks;
  std::uint32_t copies = 0;         // that the mover has not done yet
  std::uint32_t copied_blocks = 0;  // given to the mover
  std::shared_ptr<std::atomic<bool>> stop_copies = std::make_shared<std::atomic<bool>>(false);
  TimePoint move_started{};

  // draining
  Ending ending = Ending::silent;
  Error why{};

  const Ticket& ticket() const { return what.ticket; }
  std::size_t block_bytes() const { return what.shape.block_bytes(); }
  std::uint32_t tokens() const { return static_cast<std::uint32_t>(history.size()); }
  std::span<const std::int32_t> prompt() const { return std::span(history).first(prompt_tokens); }
  std::span<const std::int32_t> output() const { return std::span(history).subspan(prompt_tokens); }
  // Something outside of the loop reads or writes its blocks.
  bool moving() const {
    return push != nullptr || copies != 0 || (writer.has_value() && !writer_over && !blocks.empty());
  }
};

// Whether the model can compute it at all. Errors: invalid, naming what does not fit.
Status check(const HeldRequest& request, const model::ModelConfig& config);

// Takes output that others made. Errors: invalid (it does not go with the KV that is here).
Status take_news(HeldRequest& request, std::span<const std::int32_t> news);

}  // namespace switchyard::pool
