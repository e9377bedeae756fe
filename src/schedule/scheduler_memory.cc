// KV memory: who holds how much where, and how room is made.
#include <algorithm>
#include <cassert>

#include "schedule/scheduler.h"

namespace switchyard::schedule {

// One block more than the tokens need: a step may begin before this hears of the last one.
std::uint64_t Scheduler::kv_need(const Request& request, std::uint32_t more_tokens) const {
  const std::uint64_t tokens = std::uint64_t{request.context()} + more_tokens;
  return ((tokens + kBlockTokens - 1) / kBlockTokens + 1) * spec(request.spec.model).kv_block_bytes;
}

std::uint64_t Scheduler::free_kv(const Instance& instance) const {
  return instance.spec.kv_bytes - std::min(instance.spec.kv_bytes, instance.kv_used);
}

// Each row that runs may begin a block before anything can be done about it.
bool Scheduler::has_room(InstanceId place, std::uint64_t bytes) const {
  if (place == kHost) return host_used_ + bytes <= options_.host_kv_bytes;
  const Instance& instance = *instances_[place];
  const bool running = instance.job == Job::decode || instance.job == Job::stopping;
  const std::uint64_t growth =
      running ? instance.in_job.size() * spec(instance.batch->model).kv_block_bytes : 0;
  return free_kv(instance) >= bytes + growth;
}

void Scheduler::charge(InstanceId place, std::uint64_t bytes) {
  if (place == kHost) {
    host_used_ += bytes;
  } else {
    instances_[place]->kv_used += bytes;
  }
}

void Scheduler::release(InstanceId place, std::uint64_t bytes) {
  if (place == kHost) {
    host_used_ -= bytes;
  } else if (instances_[place]) {
    instances_[place]->kv_used -= bytes;
  }
  memory_freed_ = true;
}

void Scheduler::release_kv(Request& request) {
  if (request.moving()) {
    release(request.moving_to, request.kv_bytes);
    if (request.kv < kHost && instances_[request.kv]) instances_[request.kv]->kv_leaving -= request.kv_bytes;
  }
  if (request.kv != kNowhere) release(request.kv, request.kv_bytes);
  request.kv = request.moving_to = kNowhere;
  request.kv_bytes = 0;
}

// Room for it is kept free by after-step checks (shrink).
void Scheduler::grow(Request& request) {
  const std::uint64_t need = kv_need(request);
  if (need <= request.kv_bytes) return;
  charge(request.kv, need - request.kv_bytes);
  request.kv_bytes = need;
}

// The caller made sure of the room.
void Scheduler::move(Request& request, InstanceId to, Moment& m) {
  charge(to, request.kv_bytes);
  request.moving_to = to;
  if (request.kv < kHost) instances_[request.kv]->kv_leaving += request.kv_bytes;
  m.out.push_back(MoveKv{request.spec.id, request.kv, to});
}

// Sends rows of other batches to host memory, those that are due last first; none at all where that would not
// make room enough. `force`: where host memory is full, they lose their KV.
void Scheduler::make_room(Instance& instance, std::uint64_t bytes, const Batch* keep, bool force, Moment& m) {
  const std::uint64_t free = free_kv(instance) + instance.kv_leaving;
  if (free >= bytes) return;
  std::vector<Request*> rows;
  for (const auto& batch : instance.batches) {
    if (batch.get() == keep || batch.get() == instance.batch) continue;
    for (Request* row : batch->rows) {
      if (row_ready(instance, *row) && !row->in_job) rows.push_back(row);
    }
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Request* a, const Request* b) { return a->due() > b->due(); });
  std::vector<Request*> chosen;
  std::uint64_t gained = 0;
  std::uint64_t host = options_.host_kv_bytes - host_used_;
  for (Request* row : rows) {
    if (free + gained >= bytes) break;
    if (!force && row->kv_bytes > host) continue;
    host -= std::min(host, row->kv_bytes);
    gained += row->kv_bytes;
    chosen.push_back(row);
  }
  if (free + gained < bytes && !force) return;
  for (Request* row : chosen) {
    if (has_room(kHost, row->kv_bytes)) {
      move(*row, kHost, m);
    } else {
      drop_kv(*row, m);
    }
  }
}

void Scheduler::fetch_rows(Instance& instance, Batch& batch, Moment& m) {
  const std::uint64_t block = spec(batch.model).kv_block_bytes;
  std::vector<Request*> away;
  std::uint64_t here = 0;
  for (Request* row : batch.rows) {
    if (row->phase != Phase::decoding) continue;
    if (row->kv == kHost && !row->moving()) {
      away.push_back(row);
    } else if (row->kv == instance.id || row->moving_to == instance.id) {
      ++here;
    }
  }
  if (away.empty()) return;
  std::stable_sort(away.begin(), away.end(),
                   [](const Request* a, const Request* b) { return a->due() < b->due(); });
  for (Request* row : away) {
    // A block for each row that is going to run stays free.
    const std::uint64_t bytes = row->kv_bytes + (here + 1) * block;
    if (!has_room(instance.id, bytes)) {
      make_room(instance, bytes, &batch, false, m);
      instance.blocked = true;
      if (instance.kv_leaving > 0) return;
      continue;  // none can be made: perhaps a smaller one fits
    }
    move(*row, instance.id, m);
    ++here;
  }
}

// Leaves out rows, those due last first, until each of the others may grow by a block. They go to host
// memory, or where that is full too, lose their KV.
void Scheduler::shrink(Instance& instance, Batch& batch, Moment& m) {
  const std::uint64_t block = spec(batch.model).kv_block_bytes;
  std::vector<Request*> ready;
  for (Request* row : batch.rows) {
    if (row_ready(instance, *row)) ready.push_back(row);
  }
  if (free_kv(instance) >= ready.size() * block) return;
  make_room(instance, ready.size() * block, &batch, false, m);
  std::stable_sort(ready.begin(), ready.end(),
                   [](const Request* a, const Request* b) { return a->due() < b->due(); });
  while (ready.size() > 1 && free_kv(instance) + instance.kv_leaving < ready.size() * block) {
    Request& last = *ready.back();
    ready.pop_back();
    if (has_room(kHost, last.kv_bytes)) {
      move(last, kHost, m);
    } else {
      drop_kv(last, m);
    }
  }
  make_room(instance, ready.size() * block, &batch, true, m);
}

void Scheduler::drop_kv(Request& request, Moment& m) {
  m.out.push_back(DropKv{request.spec.id});
  restart(request, m);
}

}  // namespace switchyard::schedule
