#include "kv/handover.h"

#include <algorithm>
#include <atomic>

namespace switchyard::kv {

void Destination::write_to(ByteWriter& writer) const {
  writer.write_vector<std::byte>(pool.serialize());
  writer.write_vector<std::uint32_t>(blocks);
  writer.write(counter);
  writer.write(tokens);
  writer.write(chunk_tokens);
}

Result<Destination> Destination::read_from(ByteReader& reader) {
  Destination result;
  const auto pool = reader.read_vector<std::byte>();
  result.blocks = reader.read_vector<std::uint32_t>();
  result.counter = reader.read<CounterId>();
  result.tokens = reader.read<std::uint32_t>();
  result.chunk_tokens = reader.read<std::uint32_t>();
  if (!reader.ok()) return fail(ErrorCode::corrupt, "a KV destination is truncated");
  auto pool_key = RegionKey::parse(pool);
  if (!pool_key) return pass(pool_key.error());
  result.pool = *std::move(pool_key);
  return result;
}

Result<std::shared_ptr<Push>> Push::create(TransferEngine& engine, const Shape& shape, PushSource source,
                                           PeerAddress peer, Destination destination, TimePoint deadline,
                                           Finished finished) {
  const std::uint32_t chunk = destination.chunk_tokens;
  if (chunk == 0 || chunk % shape.block_tokens != 0 || destination.tokens == 0) {
    return fail(ErrorCode::invalid,
                "a hand-over of {} tokens in chunks of {} does not fit blocks of {} tokens",
                destination.tokens, chunk, shape.block_tokens);
  }
  const std::size_t blocks = (std::size_t{destination.tokens} + shape.block_tokens - 1) / shape.block_tokens;
  if (source.blocks.size() < blocks || destination.blocks.size() < blocks) {
    return fail(ErrorCode::invalid, "{} tokens need {} blocks; the source has {}, the destination {}",
                destination.tokens, blocks, source.blocks.size(), destination.blocks.size());
  }
  const auto fits = [&](BlockId block, std::uint64_t bytes) {
    return shape.block_bytes() <= bytes && block_offset(block) <= bytes - shape.block_bytes();
  };
  for (std::size_t i = 0; i < blocks; ++i) {
    if (!fits(destination.blocks[i], destination.pool.bytes)) {
      return fail(ErrorCode::out_of_range,
                  "block {} ({} bytes at {}) is outside of the destination's pool of {}",
                  destination.blocks[i], shape.block_bytes(), block_offset(destination.blocks[i]),
                  destination.pool.bytes);
    }
    if (!fits(source.blocks[i], source.pool.bytes())) {
      return fail(ErrorCode::out_of_range, "block {} ({} bytes at {}) is outside of the source's pool of {}",
                  source.blocks[i], shape.block_bytes(), block_offset(source.blocks[i]), source.pool.bytes());
    }
  }
  return std::shared_ptr<Push>(new Push(engine, shape, std::move(source), std::move(peer),
                                        std::move(destination), deadline, std::move(finished)));
}

Push::Push(TransferEngine& engine, const Shape& shape, PushSource source, PeerAddress peer,
           Destination destination, TimePoint deadline, Finished finished)
    : engine_(engine),
      shape_(shape),
      source_(std::move(source)),
      peer_(std::move(peer)),
      destination_(std::move(destination)),
      deadline_(deadline),
      finished_(std::move(finished)) {}

void Push::layer_done(std::uint32_t layer, std::uint32_t chunk) { enqueue({layer, chunk}); }

void Push::enqueue(Item item) {
  std::unique_lock lock(mutex_);
  if (cancelled_ || !failure_) return;
  if (++computed_ == transfer_count(shape_, destination_.tokens, destination_.chunk_tokens)) {
    computed_at_ = monotonic_now();
  }
  waiting_.push_back(item);
  submit_waiting();
  finish_if_over(lock);
}

void Push::submit_waiting() {
  while (!waiting_.empty() && failure_ && !cancelled_ && active_.size() < kMaxActive) {
    const std::uint64_t serial = next_serial_++;
    auto transfer = submit(waiting_.front(), serial);
    if (!transfer) {
      // A full engine has work of ours, or of others, under way. Ours will call back; without any, give up.
      if (transfer.error().code == ErrorCode::exhausted && !active_.empty()) return;
      failure_ = pass(transfer.error());
      waiting_.clear();
      return;
    }
    waiting_.pop_front();
    if (active_.empty()) busy_since_ = monotonic_now();
    active_.push_back({serial, *std::move(transfer)});
  }
}

Result<Transfer> Push::submit(const Item& item, std::uint64_t serial) {
  const SubmitOptions options{.counter = destination_.counter, .deadline = deadline_};
  const std::uint32_t first = item.chunk * destination_.chunk_tokens;
  const std::uint32_t last = std::min(destination_.tokens, first + destination_.chunk_tokens);
  const auto begin = static_cast<std::ptrdiff_t>(first / shape_.block_tokens);
  const auto end = static_cast<std::ptrdiff_t>((last + shape_.block_tokens - 1) / shape_.block_tokens);
  const std::uint64_t offset = item.layer * shape_.layer_bytes;
  const std::uint64_t bytes = static_cast<std::uint64_t>(end - begin) * shape_.layer_bytes;
  return engine_.write_pages(
      {.source = source_.pool,
       .source_offset = offset,
       .source_stride = kBlockUnit,
       .source_pages = {source_.blocks.begin() + begin, source_.blocks.begin() + end},
       .peer = peer_,
       .target = destination_.pool,
       .target_offset = offset,
       .target_stride = kBlockUnit,
       .target_pages = {destination_.blocks.begin() + begin, destination_.blocks.begin() + end},
       .page_bytes = shape_.layer_bytes,
       .options = options},
      [self = shared_from_this(), serial, bytes](const Status& status) {
        self->transfer_done(serial, bytes, status);
      });
}

void Push::transfer_done(std::uint64_t serial, std::uint64_t bytes, const Status& status) {
  std::unique_lock lock(mutex_);
  const auto found = std::find_if(active_.begin(), active_.end(),
                                  [serial](const Active& active) { return active.serial == serial; });
  if (!status) failed_.push_back(found->transfer);
  active_.erase(found);
  if (status) {
    ++landed_;
    report_.bytes += bytes;
  } else if (failure_) {
    failure_ = status;
    waiting_.clear();
  }
  submit_waiting();
  if (active_.empty()) {
    const TimePoint now = monotonic_now();
    report_.busy += now - busy_since_;
    if (computed_at_ < now) report_.exposed += now - std::max(busy_since_, computed_at_);
  }
  finish_if_over(lock);
}

void Push::finish_if_over(std::unique_lock<std::mutex>& lock) {
  const bool landed = landed_ == transfer_count(shape_, destination_.tokens, destination_.chunk_tokens);
  if (!active_.empty() || (!landed && failure_ && !cancelled_) || !finished_) return;
  Finished finished = std::exchange(finished_, {});
  Status status = failure_;
  if (cancelled_ && status && !landed) status = fail(ErrorCode::cancelled, "the hand-over was cancelled");
  const PushReport report = report_;
  lock.unlock();
  finished(status, report);
}

void Push::cancel(std::function<void()> drained) {
  std::unique_lock lock(mutex_);
  cancelled_ = true;
  waiting_.clear();
  std::vector<Transfer> transfers = std::exchange(failed_, {});
  for (const Active& active : active_) transfers.push_back(active.transfer);
  finish_if_over(lock);
  if (lock.owns_lock()) lock.unlock();
  auto remaining = std::make_shared<std::atomic<std::size_t>>(transfers.size() + 1);
  auto one_drained = [remaining, drained = std::move(drained)] {
    if (remaining->fetch_sub(1) == 1) drained();
  };
  for (Transfer& transfer : transfers) transfer.cancel(one_drained);
  one_drained();
}

}  // namespace switchyard::kv
