#include "pool/reload.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include "base/log.h"

namespace switchyard::pool {

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
  if (!outcome->needs_restart.empty()) {
    log::warn("the configuration's {} changed; this needs a restart",
              fmt::join(outcome->needs_restart, ", "));
  }
  return outcome;
}

Result<Reloader::Outcome> Reloader::apply() {
  auto loaded = load_();
  if (!loaded) return pass(loaded.error());
  if (auto valid = validate(loaded->pool); !valid) return pass(valid.error());
  auto change = catalogue_.replace(loaded->pool.models);
  if (!change) return pass(change.error());
  Outcome outcome;
  outcome.models = std::move(*change);
  const std::lock_guard lock(mutex_);
  outcome.needs_restart = keys_for_restart(running_, *loaded);
  running_.defaults = loaded->defaults;
  return outcome;
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
