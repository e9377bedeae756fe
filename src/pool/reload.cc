#include "pool/reload.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/log.h"
#include "model/checkpoint.h"
#include "model/image.h"
#include "model/image_plan.h"

namespace switchyard::pool {
namespace {

// Whether it can be served, as far as can be told without reading its weights.
Status can_be_served(const std::filesystem::path& path, const Catalogue& catalogue) {
  if (model::is_image_file(path)) {
    const auto image = model::ModelImage::open(path);
    if (!image) return pass(image.error());
    return catalogue.fits((*image)->config(), (*image)->bytes().size());
  }
  const auto checkpoint = model::Checkpoint::open(path);
  if (!checkpoint) return pass(checkpoint.error());
  const auto plan = model::plan_image((*checkpoint)->config(), (*checkpoint)->tensors());
  if (!plan) return fail_at(path.string(), plan.error());
  return catalogue.fits((*checkpoint)->config(), model::planned_bytes(*plan));
}

}  // namespace

Result<Reloader::Outcome> Reloader::reload() {
  const std::lock_guard lock(reloading_);
  auto outcome = apply();
  if (!outcome) {
    log::error("the configuration was not reloaded, nothing was changed: {}", outcome.error().message);
    return outcome;
  }
  const auto& models = outcome->models;
  log::info("configuration reloaded: models added: {}; removed: {}; changed: {}",
            models.added.empty() ? "none" : fmt::to_string(fmt::join(models.added, ", ")),
            models.removed.empty() ? "none" : fmt::to_string(fmt::join(models.removed, ", ")),
            models.changed.empty() ? "none" : fmt::to_string(fmt::join(models.changed, ", ")));
  for (const std::string& warning : outcome->warnings) log::warn("{}", warning);
  if (!outcome->needs_restart.empty()) {
    log::warn("the configuration's {} changed; this needs a restart",
              fmt::join(outcome->needs_restart, ", "));
  }
  return outcome;
}

Result<Reloader::Outcome> Reloader::apply() {
  auto loaded = source_.read();
  if (!loaded) return pass(loaded.error());
  if (loaded->pool.models.empty() && !running_.pool.models.empty()) {
    return fail(
        ErrorCode::invalid,
        "it names no model, neither under 'models' nor as 'model', while {} served by name: list what "
        "is to be served, or start the server again for the default model",
        running_.pool.models.size() == 1 ? "one is" : "some are");
  }
  auto named = loaded->pool.models;
  if (auto found = source_.complete(*loaded); !found) return pass(found.error());
  if (auto valid = validate(loaded->pool); !valid) return pass(valid.error());
  Outcome outcome;
  outcome.warnings = keep_working(loaded->pool.models);
  auto change = catalogue_.replace(loaded->pool.models);
  if (!change) return pass(change.error());
  outcome.models = std::move(*change);
  const std::lock_guard lock(mutex_);
  outcome.needs_restart = keys_for_restart(running_, *loaded);
  running_.defaults = loaded->defaults;
  running_.pool.models = std::move(named);
  return outcome;
}

// Gives models back their former paths where the new ones are of no use. The rest of their settings stays
// new.
std::vector<std::string> Reloader::keep_working(std::vector<ModelSettings>& wanted) const {
  std::vector<std::string> warnings;
  const auto present = catalogue_.settings();
  for (ModelSettings& model : wanted) {
    const auto before = std::ranges::find(present, model.id, &ModelSettings::id);
    const bool known = before != present.end();
    if (known && before->path == model.path) continue;
    const Status usable = can_be_served(model.path, catalogue_);
    if (usable) continue;
    if (known) {
      warnings.push_back(
          fmt::format("Model '{}' stays the one from {}: its new checkpoint cannot be served: {}.", model.id,
                      before->path.string(), usable.error().message));
      model.path = before->path;
    } else {
      warnings.push_back(fmt::format("Model '{}' is listed as failed: its checkpoint cannot be served: {}.",
                                     model.id, usable.error().message));
    }
  }
  return warnings;
}

ModelSettings Reloader::defaults() const {
  const std::lock_guard lock(mutex_);
  return running_.defaults;
}

FileWatch::Look FileWatch::look() const {
  struct stat status {};
  if (::stat(file_.c_str(), &status) != 0) return {};  // gone for a moment, while it is replaced
  return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec,
          status.st_mtim.tv_nsec};
}

bool FileWatch::changed() {
  const Look now = look();
  if (now == Look{} || (now == seen_ && !waiting_)) return false;
  if (!waiting_ || !(now == pending_)) {
    pending_ = now;
    waiting_ = true;
    return false;
  }
  waiting_ = false;
  seen_ = now;
  return true;
}

}  // namespace switchyard::pool
