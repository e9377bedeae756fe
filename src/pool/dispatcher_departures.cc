// What is left of attempts on instances: nobody's blocks are used again before everybody has let go of them.
#include <algorithm>

#include "pool/dispatcher.h"

namespace switchyard::pool {

// Has everybody forget the present attempt. `forgotten_by`: this instance has done so already, but for KV
// that is on its way elsewhere.
void Dispatcher::depart(Request& request, bool tell_policy, InstanceId forgotten_by) {
  Departure departure{.request = request.id,
                      .source = request.source,
                      .landing = request.landing,
                      .block_bytes = models_[request.model]->block_bytes,
                      .host_blocks = std::exchange(request.host_blocks, {}),
                      .tell_policy = tell_policy};
  const Ticket ticket = request.ticket();
  const bool writer_stopped = std::exchange(request.writer_stopped, false);
  if (Job* job = prefill_of(request)) {
    job->requests.erase(request.id);
    std::erase(job->lost, request.id);
    std::erase(job->arrived, request.id);
    if (!job->sent) {
      if (tell_policy) job->leaving.insert(request.id);
      // Its prompt is taken out of the order; a destination that is still to come is not waited for.
      if (request.landing != kNone && !request.landing_known) --job->expecting;
      std::erase_if(job->order.prompts,
                    [&](const RunPrefill::Prompt& prompt) { return prompt.ticket == ticket; });
      send_prefill_later(request.prefiller);
    }
  }
  for (const Holder& holder : request.holders) {
    if (find(holder.instance) == nullptr) continue;
    const bool moving =
        holder.instance == request.source || (request.move != Move::none && holder.instance == request.mover);
    if (holder.instance != forgotten_by || moving) departure.holders.insert(holder.instance);
  }
  if (!departure.holders.contains(departure.source)) departure.source = kNone;
  if (!departure.holders.contains(departure.landing)) departure.landing = kNone;
  request.holders.clear();
  request.source = request.landing = request.mover = kNone;
  request.landing_known = request.push_wanted = false;
  request.move = Move::none;

  const auto [entry, inserted] = departures_.try_emplace(ticket, std::move(departure));
  if (!inserted) {
    // It is on its way already, and holds nothing that it did not hold then. Somebody may want to hear of it
    // only now: a request that was to be computed again is cancelled.
    entry->second.tell_policy = entry->second.tell_policy || tell_policy;
    return;
  }
  const Departure& left = entry->second;
  for (const InstanceId id : std::set<InstanceId>(left.holders)) {
    // A reader is released when its writer has stopped.
    const bool read_from = id == left.landing && left.source != kNone;
    if (id != forgotten_by && !read_from) send(*find(id), Release{ticket, writer_stopped});
  }
  finish_if_empty(entry);
}

// An instance has forgotten the ticket, or has ended (`dead`).
void Dispatcher::let_go(const Ticket& ticket, InstanceId id, bool dead) {
  const auto entry = departures_.find(ticket);
  if (entry == departures_.end() || entry->second.holders.erase(id) == 0) return;
  Departure& left = entry->second;
  if (left.source == id) {
    left.source = kNone;
    if (Instance* landing = find(left.landing)) send(*landing, Release{ticket, !dead});
  }
  const auto process =
      dead ? std::ranges::find_if(instances_, [id](const auto& each) { return each.second.id == id; })
           : instances_.end();
  finish_if_empty(entry, process == instances_.end() ? std::string() : process->first);
}

// What nobody wants any more has landed: its source has forgotten it by itself.
void Dispatcher::landed(const Ticket& ticket, InstanceId id) {
  const auto entry = departures_.find(ticket);
  if (entry == departures_.end() || entry->second.landing != id) return;
  Departure& left = entry->second;
  left.holders.erase(left.source);
  left.source = kNone;
  if (Instance* landing = find(id)) send(*landing, Release{ticket, true});
}

void Dispatcher::finish_if_empty(std::map<Ticket, Departure>::iterator entry, const std::string& process) {
  if (!entry->second.holders.empty()) return;
  Departure left = std::move(entry->second);
  departures_.erase(entry);
  if (process.empty()) {
    host_->give_back(left.block_bytes, left.host_blocks);
  } else {
    host_->give_back_after(process, left.block_bytes, std::move(left.host_blocks));
  }
  if (left.tell_policy) {
    later_.push_back([this, id = left.request] {
      policy_->cancelled(id, monotonic_now(), actions_);
      for (auto& [name, instance] : instances_) {
        if (instance.job && instance.job->leaving.erase(id) > 0) end_if_empty(instance);
      }
    });
  }
}

}  // namespace switchyard::pool
