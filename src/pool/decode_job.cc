#include "pool/decode_job.h"

#include <algorithm>

#include "base/log.h"

namespace switchyard::pool {

using Stage = HeldRequest::Stage;

DecodeJob::DecodeJob(const JobParts& parts, JobCounts& counts, const RunDecode& order)
    : Job(parts, counts, order.job, order.model), limit_(order.limit) {
  for (const Row& row : order.rows) join(row);
}

void DecodeJob::join(const Row& row) {
  HeldRequest* const request = parts_.requests.find_or_tell(row.ticket);
  if (request == nullptr) return;
  if (request->job != nullptr) {
    return parts_.requests.lose(*request, {ErrorCode::invalid, "it was to be in two jobs at a time"});
  }
  if (const Status taken = take_news(*request, row.news); !taken) {
    return parts_.requests.lose(*request, taken.error());
  }
  request->job = this;
  members_.push_back({request});
}

void DecodeJob::drop(HeldRequest& request) {
  std::erase_if(members_, [&request](const Member& member) { return member.request == &request; });
  request.job = nullptr;
}

std::vector<HeldRequest*> DecodeJob::unfinished() {
  std::vector<HeldRequest*> requests;
  for (const Member& member : members_) requests.push_back(member.request);
  return requests;
}

TimePoint DecodeJob::next_deadline() const {
  TimePoint first = TimePoint::max();
  for (const Member& member : members_) {
    if (member.starving_since != TimePoint::max()) {
      first = std::min(first, member.starving_since + parts_.limits.block_limit);
    }
  }
  return first;
}

Job::Progress DecodeJob::end() {
  for (const Member& member : members_) member.request->job = nullptr;
  members_.clear();
  return Progress::over;
}

Status DecodeJob::check_row(HeldRequest& request, const model::Runtime& runtime) const {
  if (const Status fits = check_request(request, runtime); !fits) return fits;
  const std::uint32_t fed = request.tokens() - 1;
  // What came from host memory is as much as the dispatcher says.
  if (!request.kv_tokens) request.kv_tokens = fed;
  if (*request.kv_tokens != fed || request.blocks.size() < model::KvLayout::blocks_for(fed)) {
    return fail(ErrorCode::invalid, "it has {} tokens, and KV of {} in {} blocks", request.tokens(),
                *request.kv_tokens, request.blocks.size());
  }
  return {};
}

std::vector<HeldRequest*> DecodeJob::choose_rows(model::Runtime& runtime, TimePoint now) {
  for (HeldRequest* const request : unfinished()) {
    if (request->stage != Stage::ready) continue;
    if (const Status fits = check_row(*request, runtime); !fits) fail_request(*request, fits.error());
  }
  std::vector<HeldRequest*> rows;
  std::vector<HeldRequest*> starved;
  const std::size_t count = members_.size();
  std::size_t looked_at = 0;
  for (; looked_at < count && rows.size() < parts_.limits.max_rows; ++looked_at) {
    Member& member = members_[(next_ + looked_at) % count];
    HeldRequest& request = *member.request;
    if (request.stage != Stage::ready) continue;  // its KV is on its way
    if (request.blocks.size() < model::KvLayout::blocks_for(request.tokens()) &&
        !parts_.requests.grow(request)) {
      if (member.starving_since == TimePoint::max()) member.starving_since = now;
      if (now - member.starving_since >= parts_.limits.block_limit) starved.push_back(&request);
      continue;
    }
    member.starving_since = TimePoint::max();
    rows.push_back(&request);
  }
  next_ = count == 0 ? 0 : (next_ + looked_at) % count;
  for (HeldRequest* const request : starved) {
    parts_.requests.lose(*request, {ErrorCode::exhausted, "no KV block came free for its next token"});
  }
  return rows;
}

Job::Progress DecodeJob::advance(model::Runtime& runtime, TimePoint now) {
  const bool time_is_up = ended_.steps != 0 && now - first_step_ >= limit_;
  if (stopped_ || time_is_up || members_.empty()) return end();
  // The dispatcher counts on hearing of a row before it has grown by more than a block.
  if (parts_.outbox.unreported_tokens() >= parts_.limits.max_unreported) return Progress::waits;
  const std::vector<HeldRequest*> rows = choose_rows(runtime, now);
  if (members_.empty()) return end();
  if (rows.empty()) return Progress::waits;

  std::vector<model::Chunk> chunks;
  for (const HeldRequest* const request : rows) {
    chunks.push_back({.tokens = std::span(request->history).last(1),
                      .position = request->tokens() - 1,
                      .blocks = request->blocks,
                      .logits = true});
    ended_.context += request->tokens();
  }
  ended_.rows += rows.size();
  if (ended_.steps == 0) first_step_ = monotonic_now();
  const Status status = step(runtime, chunks, rows.size(), {});
  if (!status) {
    for (HeldRequest* const request : rows) fail_request(*request, status.error());
    return Progress::stepped;
  }
  Tokens tokens{.job = id()};
  std::vector<HeldRequest*> done;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    rows[row]->kv_tokens = rows[row]->tokens();
    if (take_token(*rows[row], row, tokens) != RowOutcome::running) done.push_back(rows[row]);
  }
  parts_.outbox.report(std::move(tokens));
  for (HeldRequest* const request : done) parts_.requests.end_silently(*request);
  return Progress::stepped;
}

}  // namespace switchyard::pool
