#include "pool/kv_traffic.h"

#include <algorithm>

#include "base/log.h"
#include "model/kv_layout.h"
#include "pool/job.h"

namespace switchyard::pool {

using Stage = HeldRequest::Stage;

KvTraffic::KvTraffic(TransferEngine& engine, InstanceMemory& memory, Requests& requests, Outbox& outbox,
                     const WorkerLimits& limits, Requests::Post post)
    : engine_(engine),
      memory_(memory),
      requests_(requests),
      outbox_(outbox),
      limits_(limits),
      post_(std::move(post)),
      max_pushes_(limits.max_pushes) {}

void KvTraffic::welcome(const Welcome& order) {
  if (order.host_kv.bytes == 0 || mover_) return;
  auto host = SharedMemory::open(order.host_kv, SharedMemory::Access::write);
  if (!host) {
    return log::error("host memory for KV cannot be used, nothing can be moved there: {}",
                      host.error().message);
  }
  host_ = *std::move(host);
  mover_ = std::make_unique<KvMover>(memory_.memory(), host_.span());
}

// --- From a peer ---

void KvTraffic::expect(const Expect& order) {
  HeldRequest* const request = requests_.find_or_tell(order.ticket);
  if (request == nullptr) return;
  auto writer = PeerAddress::parse(order.from);
  if (!writer) return requests_.lose(*request, writer.error());
  if (request->stage != Stage::introduced || request->job != nullptr || order.tokens == 0) {
    return requests_.lose(*request, {ErrorCode::invalid, "its KV was expected while it is somewhere else"});
  }
  const TimePoint now = monotonic_now();
  const TimePoint deadline = now + std::chrono::milliseconds(order.limit_ms);
  const auto begin = [this, request, from = *std::move(writer), tokens = order.tokens, deadline] {
    begin_expecting(*request, from, tokens, deadline);
  };
  requests_.want(*request, model::KvLayout::blocks_for(order.tokens),
                 std::min(deadline, now + limits_.block_limit), begin);
}

void KvTraffic::begin_expecting(HeldRequest& request, const PeerAddress& writer, std::uint32_t tokens,
                                TimePoint deadline) {
  auto counter = engine_.make_counter();
  if (!counter) return requests_.lose(request, counter.error());
  request.counter = *std::move(counter);
  const Status armed =
      request.counter.expect(kv::transfer_count(request.what.shape, tokens, limits_.chunk_tokens), deadline,
                             [this, serial = request.serial, tokens](const Status& status) {
                               post_([this, serial, tokens, status] { arrived(serial, tokens, status); });
                             });
  if (!armed) return requests_.lose(request, armed.error());
  request.stage = Stage::filling;
  request.writer = key_of(writer);
  // Before the writer can know where to write: its death must not be missed.
  watch(writer);
  outbox_.report(Expecting{.ticket = request.ticket(),
                           .destination = {.pool = memory_.region().key(),
                                           .blocks = request.blocks,
                                           .counter = request.counter.id(),
                                           .tokens = tokens,
                                           .chunk_tokens = limits_.chunk_tokens}});
}

void KvTraffic::watch(const PeerAddress& peer) {
  if (!watched_.insert(key_of(peer)).second) return;
  const auto lost = [this, peer](const Error& why) { post_([this, peer, why] { peer_lost(peer, why); }); };
  const Status begun = engine_.connect(peer, [lost](const Status& status) {
    if (!status) lost(status.error());
  });
  if (!begun) lost(begun.error());
}

void KvTraffic::arrived(std::uint64_t serial, std::uint32_t tokens, const Status& status) {
  HeldRequest* const request = requests_.find(serial);
  if (request == nullptr || request->writer_over) return;
  if (!status) {
    // Too late: the blocks are free only when the writer has stopped.
    if (request->stage == Stage::filling) requests_.lose(*request, status.error());
    return;
  }
  // All that the writer was to write is here.
  request->writer_over = true;
  if (request->stage == Stage::draining) return requests_.settle(*request);
  request->counter = {};
  request->kv_tokens = tokens;
  outbox_.report(KvHere{request->ticket()});
  requests_.make_ready(*request);
}

void KvTraffic::peer_lost(const PeerAddress& peer, const Error& why) {
  watched_.erase(key_of(peer));
  requests_.writer_gone(key_of(peer),
                        {ErrorCode::peer_lost, fmt::format("its writer has ended: {}", why.message)});
}

// --- To a peer ---

Status KvTraffic::begin_push(HeldRequest& request, const std::vector<std::byte>& peer,
                             kv::Destination destination) {
  auto address = PeerAddress::parse(peer);
  if (!address) return pass(address.error());
  if (destination.chunk_tokens > limits_.max_step_tokens) {
    return fail(ErrorCode::invalid, "chunks of {} tokens are more than a step of {}",
                destination.chunk_tokens, limits_.max_step_tokens);
  }
  auto push =
      kv::Push::create(engine_, request.what.shape, {.pool = memory_.region(), .blocks = request.blocks},
                       *std::move(address), std::move(destination), monotonic_now() + limits_.handover_limit,
                       [this, serial = request.serial](const Status& status, const kv::PushReport& report) {
                         post_([this, serial, status, report] { push_over(serial, status, report); });
                       });
  if (!push) return pass(push.error());
  request.push = *std::move(push);
  ++pushes_;
  return {};
}

void KvTraffic::push(const PushKv& order) {
  HeldRequest* const request = requests_.find_or_tell(order.ticket);
  if (request == nullptr) return;
  requests_.when_ready(*request, [this, order](HeldRequest& ready) {
    ready.stage = Stage::leaving;
    if (!may_push()) return waiting_pushes_.push_back(order);
    push_whole(ready, order);
  });
}

void KvTraffic::push_whole(HeldRequest& request, const PushKv& order) {
  const kv::Destination& destination = order.destination;
  if (request.kv_tokens && destination.tokens != *request.kv_tokens) {
    return requests_.lose(
        request, {ErrorCode::invalid, fmt::format("a peer expects the KV of {} tokens, and {} are here",
                                                  destination.tokens, *request.kv_tokens)});
  }
  if (const Status begun = begin_push(request, order.peer, destination); !begun) {
    return requests_.lose(request, begun.error());
  }
  const std::uint32_t chunks = kv::chunk_count(destination.tokens, destination.chunk_tokens);
  const std::shared_ptr<kv::Push> push = request.push;
  for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
    for (std::uint32_t layer = 0; layer < request.what.shape.layers; ++layer) push->layer_done(layer, chunk);
  }
}

void KvTraffic::push_over(std::uint64_t serial, const Status& status, const kv::PushReport& report) {
  --pushes_;
  pushed_.bytes += report.bytes;
  pushed_.busy += report.busy;
  pushed_.exposed += report.exposed;
  ++(status ? handovers_ : handovers_failed_);
  HeldRequest* const request = requests_.find(serial);
  // One that drains hears of its push when that is drained.
  if (request == nullptr || request->stage == Stage::draining) return;
  if (!status) return requests_.lose(*request, status.error());
  request->push.reset();
  requests_.end_silently(*request);
}

void KvTraffic::work() {
  while (!waiting_pushes_.empty() && may_push()) {
    const PushKv order = std::move(waiting_pushes_.front());
    waiting_pushes_.pop_front();
    HeldRequest* const request = requests_.find(order.ticket);
    if (request != nullptr && request->stage == Stage::leaving && !request->push) push_whole(*request, order);
  }
}

// --- Host memory ---

Status KvTraffic::check_host(const HeldRequest& request, const std::vector<BlockId>& blocks) const {
  if (!mover_) return fail(ErrorCode::unsupported, "this instance has no host memory for KV");
  for (const BlockId block : blocks) {
    if (block_offset(block) + request.block_bytes() > mover_->host().size()) {
      return fail(ErrorCode::out_of_range, "block {} is outside of the host memory of {} bytes", block,
                  mover_->host().size());
    }
  }
  return {};
}

Status KvTraffic::begin_move_out(HeldRequest& request, const std::vector<BlockId>& host_blocks,
                                 std::size_t blocks) {
  if (const Status fits = check_host(request, host_blocks); !fits) return fits;
  if (host_blocks.size() < blocks || request.blocks.size() < blocks) {
    return fail(ErrorCode::invalid, "{} blocks are to move into {} blocks of host memory",
                std::max(blocks, request.blocks.size()), host_blocks.size());
  }
  request.host_blocks = host_blocks;
  request.host_blocks.resize(blocks);
  request.copied_blocks = 0;
  request.move_started = monotonic_now();
  return {};
}

void KvTraffic::computed(HeldRequest& request, std::uint32_t blocks) {
  const auto end = std::min(blocks, static_cast<std::uint32_t>(request.host_blocks.size()));
  if (end <= request.copied_blocks) return;
  copy(request, true, request.copied_blocks, end - request.copied_blocks);
  request.copied_blocks = end;
}

void KvTraffic::leave(HeldRequest& request) {
  request.stage = Stage::leaving;
  if (!request.push && request.copies == 0) copied(request.serial, true);
}

void KvTraffic::move_out(const MoveOut& order) {
  HeldRequest* const request = requests_.find_or_tell(order.ticket);
  if (request == nullptr) return;
  requests_.when_ready(*request, [this, host_blocks = order.host_blocks](HeldRequest& ready) {
    // The block that the next token begins may be there already and is not worth moving.
    const std::size_t blocks = ready.kv_tokens ? model::KvLayout::blocks_for(*ready.kv_tokens)
                                               : std::min(ready.blocks.size(), host_blocks.size());
    if (const Status begun = begin_move_out(ready, host_blocks, blocks); !begun) {
      return requests_.lose(ready, begun.error());
    }
    computed(ready, static_cast<std::uint32_t>(ready.host_blocks.size()));
    leave(ready);
  });
}

void KvTraffic::move_in(const MoveIn& order) {
  HeldRequest* const request = requests_.find_or_tell(order.ticket);
  if (request == nullptr) return;
  const Status fits = check_host(*request, order.host_blocks);
  if (!fits) return requests_.lose(*request, fits.error());
  if (request->stage != Stage::introduced || request->job != nullptr || order.host_blocks.empty()) {
    return requests_.lose(*request, {ErrorCode::invalid, "its KV was to move in while it is somewhere else"});
  }
  request->host_blocks = order.host_blocks;
  requests_.want(*request, static_cast<std::uint32_t>(order.host_blocks.size()),
                 monotonic_now() + limits_.block_limit, [this, request] {
                   request->stage = Stage::filling;
                   request->move_started = monotonic_now();
                   copy(*request, false, 0, static_cast<std::uint32_t>(request->host_blocks.size()));
                 });
}

void KvTraffic::copy(HeldRequest& request, bool out, std::uint32_t first, std::uint32_t count) {
  ++request.copies;
  const auto part = [first, count](const std::vector<BlockId>& blocks) {
    const auto begin = blocks.begin() + static_cast<std::ptrdiff_t>(first);
    return std::vector<BlockId>(begin, begin + static_cast<std::ptrdiff_t>(count));
  };
  mover_->add({.out = out,
               .block_bytes = request.block_bytes(),
               .device = part(request.blocks),
               .host = part(request.host_blocks),
               .stop = request.stop_copies,
               .done = [this, serial = request.serial, out] {
                 post_([this, serial, out] {
                   if (HeldRequest* const copying = requests_.find(serial)) {
                     requests_.copy_done(*copying);
                     copied(serial, out);
                   }
                 });
               }});
}

void KvTraffic::copied(std::uint64_t serial, bool out) {
  HeldRequest* const request = requests_.find(serial);
  if (request == nullptr || request->copies != 0) return;
  if (request->stage != (out ? Stage::leaving : Stage::filling)) return;
  const KvMoved moved{.ticket = request->ticket(),
                      .bytes = request->host_blocks.size() * request->block_bytes(),
                      .took = monotonic_now() - request->move_started};
  ++(out ? moves_out_ : moves_in_);
  moved_bytes_ += moved.bytes;
  move_time_ += moved.took;
  outbox_.report(moved);
  if (out) return requests_.end_silently(*request);
  request->host_blocks.clear();
  request->kv_tokens = std::nullopt;
  requests_.make_ready(*request);
}

void KvTraffic::add_stats(Stats& stats) const {
  stats.gauge("handovers_pending", "Hand-overs to other instances that are under way", pushes_);
  stats.count("handovers_total", "Requests handed over", static_cast<double>(handovers_));
  stats.count("handovers_failed_total", "Hand-overs given up", static_cast<double>(handovers_failed_));
  stats.count("handover_bytes_total", "Bytes handed over", static_cast<double>(pushed_.bytes));
  stats.count("handover_busy_seconds_total", "Time with hand-over transfers under way",
              to_seconds(pushed_.busy));
  stats.count("handover_exposed_seconds_total", "Part of the busy time after the prompt was computed",
              to_seconds(pushed_.exposed));
  stats.count("kv_moves_total", "Requests whose KV was moved", static_cast<double>(moves_out_),
              {{"direction", "out"}});
  stats.count("kv_moves_total", "Requests whose KV was moved", static_cast<double>(moves_in_),
              {{"direction", "in"}});
  stats.count("kv_moved_bytes_total", "Bytes moved from and to host memory",
              static_cast<double>(moved_bytes_));
  stats.count("kv_move_seconds_total", "Time that moves from and to host memory took",
              to_seconds(move_time_));
}

}  // namespace switchyard::pool
