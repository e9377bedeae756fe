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

bool Scheduler::has_room(InstanceId place, std::uint64_t bytes) const {
  if (place == kHost) return host_used_ + bytes <= options_.host_kv_bytes;
  return free_kv(*instances_[place]) >= bytes;
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

// Sends rows of other batches to host memory, those that are due last first. `force`: where host memory is full,
// they lose their KV.
void Scheduler::make_room(Instance& instance, std::uint64_t bytes, const Batch* keep, bool force, Moment& m) {
  std::vector<Request*> rows;
  for (const auto& batch : instance.batches) {
    if (batch.get() == keep || batch.get() == instance.batch) continue;
    for (Request* row : batch->rows) {
      if (row_ready(instance, *row) && !row->in_job) rows.push_back(row);
    }
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Request* a, const Request* b) { return a->due() > b->due(); });
  for (Request* row : rows) {
    if (free_kv(instance) + instance.kv_leaving >= bytes) return;
    if (has_room(kHost, row->kv_bytes)) {
      move(*row, kHost, m);
    } else if (force) {
      drop_kv(*row, m);
    }
  }
}

void Scheduler::fetch_rows(Instance& instance, Batch& batch, Moment& m) {
  std::uint64_t missing = 0;
  for (Request* row : batch.rows) {
    if (row->kv != kHost || row->moving() || row->phase != Phase::decoding) continue;
    // A block for each row that runs stays free.
    const std::uint64_t reserve = (instance.in_job.size() + batch.rows.size()) * spec(batch.model).kv_block_bytes;
    if (missing == 0 && has_room(instance.id, row->kv_bytes + reserve)) {
      move(*row, instance.id, m);
    } else {
      missing += row->kv_bytes + reserve;
    }
  }
  if (missing > 0) {
    make_room(instance, missing, &batch, false, m);
    instance.blocked = true;
  }
}

// Leaves out rows, those due last first, until each of the others may grow by a block. They go to host memory, or
// where that is full too, lose their KV.
void Scheduler::shrink(Instance& instance, Batch& batch, Moment& m) {
  const std::uint64_t block = spec(batch.model).kv_block_bytes;
  std::vector<Request*> ready;
  for (Request* row : batch.rows) {
    if (row_ready(instance, *row)) ready.push_back(row);
  }
  if (free_kv(instance) >= ready.size() * block) return;
  make_room(instance, ready.size() * block, &batch, false, m);
  std::stable_sort(ready.begin(), ready.end(), [](const Request* a, const Request* b) { return a->due() < b->due(); });
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
