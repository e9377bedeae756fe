#include "pool/prefill_job.h"

#include <algorithm>

#include "base/log.h"

namespace switchyard::pool {

using Stage = HeldRequest::Stage;

PrefillJob::PrefillJob(const JobParts& parts, JobCounts& counts, RunPrefill order)
    : Job(parts, counts, order.job, order.model) {
  for (RunPrefill::Prompt& prompt : order.prompts) {
    HeldRequest* const request = parts_.requests.find_or_tell(prompt.ticket);
    if (request == nullptr) continue;
    if (request->stage != Stage::introduced || request->job != nullptr) {
      parts_.requests.lose(*request,
                           {ErrorCode::invalid, "it was to be computed while it is somewhere else"});
      continue;
    }
    request->job = this;
    prompts_.push_back({.request = request, .order = std::move(prompt)});
  }
}

void PrefillJob::drop(HeldRequest& request) {
  prompts_.remove_if([&request](const Part& part) { return part.request == &request; });
  request.job = nullptr;
}

std::vector<HeldRequest*> PrefillJob::unfinished() {
  std::vector<HeldRequest*> requests;
  for (const Part& part : prompts_) requests.push_back(part.request);
  return requests;
}

void PrefillJob::begin_prompts(model::Runtime& runtime, TimePoint now) {
  auto begun = static_cast<std::size_t>(
      std::count_if(prompts_.begin(), prompts_.end(), [](const Part& part) { return part.begun; }));
  for (auto each = prompts_.begin(); each != prompts_.end() && begun < kMaxBegun;) {
    Part& part = *each++;  // it may leave the list
    if (part.begun) continue;
    if (part.order.target == KvTarget::peer && !parts_.traffic.may_push()) return;
    if (const Status fits = check_request(*part.request, runtime); !fits) {
      fail_request(*part.request, fits.error());
      continue;
    }
    part.begun = true;
    ++begun;
    part.computed = parts_.requests.reuse(*part.request);
    parts_.requests.want(*part.request,
                         model::KvLayout::blocks_for(part.request->tokens()) -
                             static_cast<std::uint32_t>(part.request->blocks.size()),
                         now + parts_.limits.block_limit, [this, &part] { begin_computing(part); });
  }
  parts_.requests.serve_wants(now);
}

void PrefillJob::begin_computing(Part& part) {
  HeldRequest& request = *part.request;
  request.stage = Stage::computing;
  part.chunk = parts_.limits.chunk_tokens;
  Status begun;
  if (part.order.target == KvTarget::peer) {
    part.chunk = part.order.destination.chunk_tokens;
    if (part.order.destination.tokens != request.tokens()) {
      begun = fail(ErrorCode::invalid, "a peer expects the KV of {} tokens of a prompt of {}",
                   part.order.destination.tokens, request.tokens());
    } else {
      begun = parts_.traffic.begin_push(request, part.order.peer, std::move(part.order.destination));
    }
  } else if (part.order.target == KvTarget::host) {
    begun = parts_.traffic.begin_move_out(request, part.order.host_blocks,
                                          model::KvLayout::blocks_for(request.tokens()));
  }
  if (!begun) return parts_.requests.lose(request, begun.error());
  part.computing = true;
  ended_.reused += part.computed;
  counts_.reused_tokens += part.computed;
  // What is there already goes on its way at once; the chunk that is only begun goes with the rest of it.
  if (request.push) {
    for (std::uint32_t chunk = 0; chunk < part.computed / part.chunk; ++chunk) {
      for (std::uint32_t layer = 0; layer < request.what.shape.layers; ++layer) {
        request.push->layer_done(layer, chunk);
      }
    }
  }
}

Job::Progress PrefillJob::advance(model::Runtime& runtime, TimePoint now) {
  begin_prompts(runtime, now);
  if (prompts_.empty()) return Progress::over;

  std::vector<Part*> stepped;
  std::vector<std::uint32_t> counts;
  std::vector<model::Chunk> chunks;
  std::uint32_t room = parts_.limits.max_step_tokens;
  std::size_t ending = 0;
  for (Part& part : prompts_) {
    if (!part.computing) continue;
    const std::uint32_t total = part.request->tokens();
    // Up to the next border of a chunk, wherever the last one ended: the peer counts chunks.
    const std::uint32_t border = (part.computed / part.chunk + 1) * part.chunk;
    const std::uint32_t count = std::min(border, total) - part.computed;
    if (count > room || ending == parts_.limits.max_rows) break;
    const bool last = part.computed + count == total;
    stepped.push_back(&part);
    counts.push_back(count);
    chunks.push_back({.tokens = std::span(part.request->history).subspan(part.computed, count),
                      .position = part.computed,
                      .blocks = part.request->blocks,
                      .logits = last});
    room -= count;
    ending += last ? 1 : 0;
  }
  if (stepped.empty()) return Progress::waits;

  const Status status = step(runtime, chunks, ending, [&stepped](std::uint32_t layer) {
    for (const Part* const part : stepped) {
      if (part->request->push) part->request->push->layer_done(layer, part->computed / part->chunk);
    }
  });
  if (!status) {
    for (const Part* const part : stepped) fail_request(*part->request, status.error());
  } else {
    step_over(stepped, counts);
  }
  return prompts_.empty() ? Progress::over : Progress::stepped;
}

void PrefillJob::step_over(const std::vector<Part*>& stepped, const std::vector<std::uint32_t>& counts) {
  Tokens tokens{.job = id()};
  std::vector<std::pair<Part*, RowOutcome>> done;
  std::size_t row = 0;
  for (std::size_t i = 0; i < stepped.size(); ++i) {
    Part& part = *stepped[i];
    HeldRequest& request = *part.request;
    const std::uint32_t total = request.tokens();
    part.computed += counts[i];
    ended_.tokens += counts[i];
    counts_.prompt_tokens += counts[i];
    request.kv_tokens = part.computed;
    const bool last = part.computed == total;
    if (part.order.target == KvTarget::host) {
      parts_.traffic.computed(
          request, last ? model::KvLayout::blocks_for(total) : part.computed / model::kBlockTokens);
    }
    if (last) parts_.requests.keep(request);
    if (last) done.emplace_back(&part, take_token(request, row++, tokens));
  }
  // Told before anything that comes of it.
  parts_.outbox.report(std::move(tokens));
  for (const auto& [part, outcome] : done) finish(*part, outcome);
}

void PrefillJob::finish(Part& part, RowOutcome outcome) {
  HeldRequest& request = *part.request;
  const KvTarget target = part.order.target;
  drop(request);
  if (target != KvTarget::stay) {
    // KV that is on its way arrives, also of a request that has ended: the other side counts on it.
    parts_.traffic.leave(request);
  } else if (outcome != RowOutcome::running) {
    parts_.requests.end_silently(request);
  } else {
    parts_.requests.make_ready(request);
  }
}

}  // namespace switchyard::pool
