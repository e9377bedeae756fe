// The catalogue: models come, are prepared, fail, change and go while the pool runs.
#include <algorithm>
#include <ctime>

#include "base/log.h"
#include "base/units.h"
#include "memory/block_pool.h"
#include "model/kv_layout.h"
#include "model/runtime.h"
#include "pool/dispatcher.h"

namespace switchyard::pool {
namespace {

constexpr Nanos kFirstPause = std::chrono::seconds(1);
constexpr Nanos kLongestPause = std::chrono::minutes(5);

// What the checkpoint or the server's sizes say will be the same the next time: somebody has to change one of
// them, and then loads the model, adds it again, or restarts.
bool is_permanent(const Error& why) {
  return why.code == ErrorCode::unsupported || why.code == ErrorCode::out_of_range ||
         why.code == ErrorCode::invalid;
}

}  // namespace

Dispatcher::Model* Dispatcher::find_model(std::string_view id) {
  Model* found = nullptr;
  for (const auto& model : models_) {
    // One that is on its way out may have a successor of the same name.
    if (!model->gone && model->settings.id == id) found = model.get();
  }
  return found;
}

const Dispatcher::Model* Dispatcher::find_model(std::string_view id) const {
  return const_cast<Dispatcher*>(this)->find_model(id);
}

Status Dispatcher::check_new(const ModelSettings& settings) const {
  if (auto valid = validate(settings); !valid) return valid;
  const Model* same = find_model(settings.id);
  if (same != nullptr && same->state != ModelState::removing)
    return fail(ErrorCode::exhausted, "there is a model '{}' already", settings.id);
  const auto present = std::ranges::count_if(models_, [](const auto& model) { return !model->gone; });
  if (static_cast<std::size_t>(present) >= kMaxModels || models_.size() >= schedule::kMaxId)
    return fail(ErrorCode::exhausted, "{} models are the most that a pool has", kMaxModels);
  return settings.pinned ? check_pins(pinned_models() + 1) : Status{};
}

std::uint64_t Dispatcher::pinned_models() const {
  return static_cast<std::uint64_t>(std::ranges::count_if(models_, [](const auto& each) {
    return !each->gone && each->state != ModelState::removing && each->settings.pinned;
  }));
}

Status Dispatcher::check_pins(std::uint64_t pinned) const {
  if (leaves_a_berth(pinned, options_.berths)) return {};
  return fail(
      ErrorCode::exhausted,
      "{} models would be pinned in {} berths; one berth must stay free for the others: pin fewer, or "
      "start the server with more berths",
      pinned, options_.berths);
}

Dispatcher::Model& Dispatcher::enter(const ModelSettings& settings) {
  models_.push_back(std::make_unique<Model>());
  Model& model = *models_.back();
  model.settings = settings;
  model.id = static_cast<ModelId>(models_.size() - 1);
  model.created = std::time(nullptr);
  ++version_;
  return model;
}

Status Dispatcher::add_opened_model(const ModelSettings& settings,
                                    std::shared_ptr<const model::ModelImage> image) {
  const std::lock_guard lock(mutex_);
  if (auto valid = check_new(settings); !valid) return valid;
  Model& model = enter(settings);
  const Status served = begin_serving(model, std::move(image));
  if (!served) model_failed(model, served.error());
  settle();
  return served;
}

Status Dispatcher::add_failed_model(const ModelSettings& settings, const Error& why) {
  const std::lock_guard lock(mutex_);
  if (auto valid = check_new(settings); !valid) return valid;
  model_failed(enter(settings), why);
  return {};
}

Status Dispatcher::add_model(const ModelSettings& settings) {
  const std::lock_guard lock(mutex_);
  if (down_) return tl::unexpected<Error>(down_reason_);
  if (auto valid = check_new(settings); !valid) return valid;
  prepare(enter(settings));
  log::info("model '{}' is added from {}", settings.id, settings.path.string());
  return {};
}

void Dispatcher::prepare(Model& model) {
  model.permanent = false;
  const std::string doing =
      model.damaged ? "its image was damaged and is being made anew" : "it is being prepared";
  const std::string before =
      model.failure.empty() ? "" : fmt::format("; the last time it failed: {}", model.failure);
  if (model.state != ModelState::removing) {
    model.state = ModelState::preparing;
    model.detail = doing + before;
  }
  ++version_;
  const auto weak = std::weak_ptr<bool>(alive_);
  ModelCache::Opened then = [this, weak,
                             id = model.id](Result<std::shared_ptr<const model::ModelImage>> image) {
    const auto alive = weak.lock();
    if (!alive) return;
    {
      const std::lock_guard lock(mutex_);
      opened(id, std::move(image));
      settle();
    }
    notify_lost();
  };
  ModelCache::Progress progress = [this, weak, id = model.id, doing, before](std::uint64_t done,
                                                                             std::uint64_t total) {
    const auto alive = weak.lock();
    if (!alive || total == 0) return;
    const std::lock_guard lock(mutex_);
    if (models_[id]->state != ModelState::preparing) return;
    models_[id]->detail = fmt::format("{}, {} %{}", doing, 100 * done / total, before);
  };
  if (model.damaged) {
    cache_.repair(model.settings.path, model.image->hash(), std::move(then), std::move(progress));
  } else {
    cache_.open(model.settings.path, std::move(then), std::move(progress));
  }
}

void Dispatcher::try_again(Model& model) {
  if (!model.known || model.damaged) return prepare(model);
  model.state = ModelState::ready;
  ++version_;
  // So do requests that have KV, and so have not failed.
  static_cast<void>(policy_->update_model(model.id, spec_of(model), monotonic_now(), actions_));
  settle();
}

// Its requests wait until the image has been made anew, and new ones are told to come again.
void Dispatcher::image_damaged(Model& model, const Error& why) {
  if (std::exchange(model.damaged, true)) return;  // that is under way, or its next try begins with it
  if (model.state == ModelState::failed) return;
  if (model.repairs == kMaxRepairs) {
    return model_failed(model, {why.code, fmt::format("its image is damaged though it was made anew {} "
                                                      "times; is the disk sound? {}",
                                                      kMaxRepairs, why.message)});
  }
  ++model.repairs;
  log::error("model '{}': its image is damaged and is made anew: {}", model.settings.id, why.message);
  prepare(model);
}

void Dispatcher::repaired(Model& model, Result<std::shared_ptr<const model::ModelImage>> image) {
  if (!image) {
    return model_failed(
        model, {image.error().code,
                fmt::format("its image is damaged and cannot be made anew: {}", image.error().message)});
  }
  model.damaged = false;
  model.image = *std::move(image);
  ++version_;
  log::info("model '{}': its image has been made anew", model.settings.id);
  if (model.state == ModelState::preparing) {
    model.state = ModelState::ready;
    model.detail.clear();
  }
  // What waits for it is tried again.
  static_cast<void>(policy_->update_model(model.id, spec_of(model), monotonic_now(), actions_));
}

void Dispatcher::opened(ModelId id, Result<std::shared_ptr<const model::ModelImage>> image) {
  Model& model = *models_[id];
  if (down_ || model.gone) return;
  if (model.damaged) return repaired(model, std::move(image));
  if (model.state != ModelState::preparing) return;
  const Status served = image ? begin_serving(model, *std::move(image)) : Status(pass(image.error()));
  if (!served) return model_failed(model, served.error());
  log::info("model '{}' is ready", model.settings.id);
}

schedule::ModelSpec Dispatcher::spec_of(const Model& model) const {
  const std::uint64_t bytes = model.image->bytes().size();
  return {.name = model.settings.id,
          // A berth holds one model, however small; `static` counts bytes.
          .weight_bytes = options_.policy == schedule::PolicyKind::fixed ? options_.berth_bytes : bytes,
          .kv_block_bytes = block_charge(options_.slab_bytes, model.block_bytes),
          .targets = model.settings.targets,
          .weight = model.settings.weight,
          .pinned = model.settings.pinned,
          .max_waiting = model.settings.max_waiting,
          .rate = model.settings.rate};
}

// Each block shape may leave a part of one slab unused.
std::uint64_t Dispatcher::spare_slabs(std::uint64_t slabs) const {
  std::set<std::uint64_t> shapes;
  for (const auto& model : models_) {
    if (model->known) shapes.insert(model->block_bytes);
  }
  return std::min<std::uint64_t>(std::max<std::size_t>(shapes.size(), 1), slabs / 4);
}

Result<std::uint32_t> Dispatcher::longest_context(const model::ModelConfig& config,
                                                  std::uint64_t weight_bytes) const {
  if (weight_bytes > options_.berth_bytes) {
    return fail(ErrorCode::out_of_range,
                "its weights of {} do not fit a berth of {}: set berth_memory to {} or more and start again",
                format_bytes(weight_bytes), format_bytes(options_.berth_bytes), setting_for(weight_bytes));
  }
  const std::uint64_t block_bytes = model::kv_layout(config).block_bytes();
  if (block_bytes > options_.slab_bytes) {
    return fail(ErrorCode::out_of_range,
                "its KV blocks of {} do not fit slabs of {}; start the server with this model",
                format_bytes(block_bytes), format_bytes(options_.slab_bytes));
  }
  const std::uint64_t slabs = options_.kv_bytes / options_.slab_bytes;
  // As the policy reckons: one block more than the tokens need, and one to grow into.
  const std::uint64_t blocks =
      (slabs - spare_slabs(slabs)) * options_.slab_bytes / block_charge(options_.slab_bytes, block_bytes);
  if (blocks <= 3) {
    return fail(ErrorCode::out_of_range, "KV memory of {} holds no request of it; give more kv_memory",
                format_bytes(options_.kv_bytes));
  }
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>((blocks - 3) * model::kBlockTokens, config.context));
}

Status Dispatcher::fits(const model::ModelConfig& config, std::uint64_t weight_bytes) const {
  const std::lock_guard lock(mutex_);
  const auto context = longest_context(config, weight_bytes);
  return context ? check_budget(weight_bytes, cache_.usage().budget_bytes) : Status(pass(context.error()));
}

// What does not fit is said at once.
Status Dispatcher::begin_serving(Model& model, std::shared_ptr<const model::ModelImage> image) {
  const model::ModelConfig& config = image->config();
  const model::KvLayout layout = model::kv_layout(config);
  const std::uint64_t bytes = image->bytes().size();
  if (auto fits = check_budget(*image, cache_.usage().budget_bytes); !fits) return fits;
  if (auto context = longest_context(config, bytes); !context) return pass(context.error());
  model.image = std::move(image);
  model.shape = {
      .layers = layout.layers, .block_tokens = model::kBlockTokens, .layer_bytes = layout.layer_bytes()};
  model.block_bytes = layout.block_bytes();
  set_context(model);
  costs_.add_model(model.id, bytes, layout.block_bytes() / model::kBlockTokens);
  if (auto added = policy_->add_model(model.id, spec_of(model), monotonic_now(), actions_); !added)
    return added;
  model.known = true;
  model.state = ModelState::ready;
  model.detail.clear();
  model.failure.clear();
  cache_.prefetch(model.image);
  ++version_;
  return {};
}

// A breaker: nobody is let in for a while, then tick() tries it again.
void Dispatcher::model_failed(Model& model, const Error& why) {
  log::error("model '{}': {}", model.settings.id, why.message);
  if (model.state == ModelState::removing) {
    fail_requests(model.id, why);
    return;
  }
  model.state = ModelState::failed;
  model.detail = model.failure = why.message;
  model.permanent = is_permanent(why);
  model.pause = model.pause == Nanos{} ? kFirstPause : std::min(2 * model.pause, kLongestPause);
  model.retry_at = monotonic_now() + model.pause;
  ++version_;
  fail_requests(model.id, why);
}

Status Dispatcher::remove_model(const std::string& id) {
  const std::lock_guard lock(mutex_);
  Model* model = find_model(id);
  if (model == nullptr) return fail(ErrorCode::not_found, "there is no model '{}'", id);
  const Status removed = remove_locked(*model);
  settle();
  return removed;
}

Status Dispatcher::remove_locked(Model& model) {
  model.state = ModelState::removing;
  model.detail = "it is being removed";
  ++version_;
  log::info("model '{}' is removed", model.settings.id);
  remove_if_idle(model);
  return {};
}

void Dispatcher::remove_if_idle(Model& model) {
  if (model.state != ModelState::removing || model.gone || model.waiting + model.running > 0) return;
  // The policy would forget a load that ends in a berth all the same. tick() comes back.
  const bool loading = std::ranges::any_of(instances_, [&](const auto& entry) {
    return entry.second.load && entry.second.load->model == model.id;
  });
  if (loading) return;
  if (model.known && !policy_->remove_model(model.id, monotonic_now(), actions_))
    return;  // something of it is still on instances; tick() comes back
  model.gone = true;
  for (auto& [name, instance] : instances_) {
    if (instance.resident.erase(model.id) > 0) send(instance, EvictModel{model.id});
  }
  if (model.image) cache_.forget(model.image->hash());
  model.image.reset();
  ++version_;
}

Status Dispatcher::load_model(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    Model* model = find_model(id);
    if (model == nullptr || model->state == ModelState::removing)
      return fail(ErrorCode::not_found, "there is no model '{}'", id);
    if (model->state == ModelState::preparing) return {};
    if (model->state == ModelState::failed) {
      model->retry_at = {};
      try_again(*model);
      if (model->state != ModelState::ready) return {};
    }
  }
  // One token of one prompt brings it wherever it is needed.
  class Nobody final : public GenerationSink {
    void on_token(const model::SampledToken&) override {}
    void on_end(const GenerationEnd&) override {}
  };
  auto asked = submit(
      {.model = id, .metered = false, .prompt = {0, 0}, .sampling = {.temperature = 0}, .max_tokens = 2},
      std::make_shared<Nobody>());
  if (!asked) return tl::unexpected<Error>(asked.error().error);
  return {};
}

void Dispatcher::set_context(Model& model) {
  const auto longest = longest_context(model.image->config(), model.image->bytes().size());
  if (!longest) return;
  const std::uint32_t wanted = model.settings.context;
  model.context = wanted == 0 ? *longest : std::min(*longest, wanted);
}

Status Dispatcher::set_settings(Model& model, const ModelSettings& settings) {
  const ModelSettings before = std::exchange(model.settings, settings);
  if (!model.known) return {};
  const auto changed = policy_->update_model(model.id, spec_of(model), monotonic_now(), actions_);
  if (!changed) model.settings = before;
  set_context(model);
  ++version_;
  return changed;
}

Status Dispatcher::pin_model(const std::string& id, bool pinned) {
  {
    const std::lock_guard lock(mutex_);
    Model* model = find_model(id);
    if (model == nullptr) return fail(ErrorCode::not_found, "there is no model '{}'", id);
    if (model->settings.pinned == pinned) return {};
    if (pinned) {
      if (auto room = check_pins(pinned_models() + 1); !room) return room;
    }
    ModelSettings settings = model->settings;
    settings.pinned = pinned;
    if (auto set = set_settings(*model, settings); !set) return set;
    settle();
  }
  // Where there is no room for that now, its next request brings it.
  if (pinned) static_cast<void>(load_model(id));
  return {};
}

Result<CatalogueChange> Dispatcher::replace(const std::vector<ModelSettings>& wanted) {
  const std::lock_guard lock(mutex_);
  if (down_) return tl::unexpected<Error>(down_reason_);
  std::size_t pinned = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (auto valid = validate(wanted[i]); !valid) return fail_at(wanted[i].id, valid.error());
    pinned += wanted[i].pinned ? 1 : 0;
    for (std::size_t j = 0; j < i; ++j) {
      if (wanted[i].id == wanted[j].id)
        return fail(ErrorCode::invalid, "model '{}' is listed twice", wanted[i].id);
    }
  }
  if (auto room = check_pins(pinned); !room) return pass(room.error());
  CatalogueChange change;
  std::set<std::string> moved;  // to another checkpoint
  const std::size_t before = models_.size();
  for (std::size_t i = 0; i < before; ++i) {
    Model& model = *models_[i];
    if (model.gone || model.state == ModelState::removing) continue;
    const auto same = std::ranges::find(wanted, model.settings.id, &ModelSettings::id);
    if (same != wanted.end() && same->path == model.settings.path) {
      if (*same == model.settings) continue;
      const std::string id = model.settings.id;
      if (auto set = set_settings(model, *same); !set) return fail_at(id, set.error());
      change.changed.push_back(id);
    } else {
      if (same == wanted.end()) {
        change.removed.push_back(model.settings.id);
      } else {
        moved.insert(model.settings.id);
      }
      (void)remove_locked(model);
    }
  }
  for (const ModelSettings& settings : wanted) {
    const auto present = std::ranges::any_of(models_, [&](const auto& model) {
      return !model->gone && model->state != ModelState::removing && model->settings.id == settings.id;
    });
    if (present) continue;
    prepare(enter(settings));
    (moved.contains(settings.id) ? change.changed : change.added).push_back(settings.id);
  }
  settle();
  return change;
}

std::vector<ModelSettings> Dispatcher::settings() const {
  const std::lock_guard lock(mutex_);
  std::vector<ModelSettings> result;
  for (const auto& model : models_) {
    if (!model->gone && model->state != ModelState::removing) result.push_back(model->settings);
  }
  return result;
}

std::vector<ServedModel> Dispatcher::models() const {
  const std::lock_guard lock(mutex_);
  const TimePoint now = monotonic_now();
  std::vector<ServedModel> result;
  for (const auto& model : models_) {
    if (model->gone) continue;
    ServedModel served{.id = model->settings.id,
                       .image = model->image,
                       .context = model->context,
                       .created = model->created,
                       .state = model->state,
                       .detail = model->detail,
                       .retry_after = model->state == ModelState::failed
                                          ? std::max(Nanos{}, model->retry_at - now)
                                          : Nanos{},
                       .permanent = model->state == ModelState::failed && model->permanent,
                       .pinned = model->settings.pinned,
                       .resident_on = {},
                       .waiting = model->waiting,
                       .running = model->running};
    for (const auto& [name, instance] : instances_) {
      if (instance.resident.contains(model->id)) served.resident_on.push_back(name);
    }
    result.push_back(std::move(served));
  }
  return result;
}

std::uint64_t Dispatcher::models_version() const {
  const std::lock_guard lock(mutex_);
  return version_;
}

}  // namespace switchyard::pool
