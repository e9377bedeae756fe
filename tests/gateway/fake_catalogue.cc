#include "gateway/fake_catalogue.h"

#include <algorithm>

namespace switchyard::gateway::testing {
namespace {

auto with_id(const std::string& id) {
  return [&id](const auto& model) { return model.id == id; };
}

}  // namespace

FakeCatalogue::FakeCatalogue(FakeGenerator& generator) : generator_(generator) {
  for (const auto& model : generator.models()) {
    settings_.push_back({.id = model.id, .path = "/models/" + model.id});
  }
}

Status FakeCatalogue::add_model(const pool::ModelSettings& settings) {
  const std::lock_guard lock(mutex_);
  if (auto valid = pool::validate(settings); !valid) return valid;
  if (std::any_of(settings_.begin(), settings_.end(), with_id(settings.id)))
    return fail(ErrorCode::exhausted, "there is a model '{}' already", settings.id);
  settings_.push_back(settings);
  generator_.change_models([&](auto& models) {
    pool::ServedModel model{settings.id, nullptr, 2048, 1700000002};
    model.state = pool::ModelState::preparing;
    model.pinned = settings.pinned;
    models.push_back(model);
  });
  return {};
}

Status FakeCatalogue::remove_model(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (std::erase_if(settings_, with_id(id)) == 0)
    return fail(ErrorCode::not_found, "there is no model '{}'", id);
  generator_.set_model(id, pool::ModelState::removing);
  return {};
}

Status FakeCatalogue::load_model(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (std::none_of(settings_.begin(), settings_.end(), with_id(id)))
    return fail(ErrorCode::not_found, "there is no model '{}'", id);
  loaded_.push_back(id);
  return {};
}

Status FakeCatalogue::pin_model(const std::string& id, bool pinned) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(settings_.begin(), settings_.end(), with_id(id));
  if (found == settings_.end()) return fail(ErrorCode::not_found, "there is no model '{}'", id);
  const bool other = std::any_of(settings_.begin(), settings_.end(),
                                 [&](const auto& model) { return model.pinned && model.id != id; });
  if (pinned && other) return fail(ErrorCode::exhausted, "one model is pinned already");
  found->pinned = pinned;
  generator_.change_models([&](auto& models) {
    for (auto& model : models) {
      if (model.id == id) model.pinned = pinned;
    }
  });
  return {};
}

Result<pool::CatalogueChange> FakeCatalogue::replace(const std::vector<pool::ModelSettings>& models) {
  pool::CatalogueChange change;
  for (const auto& model : models) {
    if (auto valid = pool::validate(model); !valid) return pass(valid.error());
  }
  const auto before = settings();
  for (const auto& model : before) {
    if (std::any_of(models.begin(), models.end(), with_id(model.id))) continue;
    change.removed.push_back(model.id);
    static_cast<void>(remove_model(model.id));
  }
  for (const auto& model : models) {
    const auto found = std::find_if(before.begin(), before.end(), with_id(model.id));
    if (found == before.end()) {
      change.added.push_back(model.id);
      static_cast<void>(add_model(model));
    } else if (!(*found == model)) {
      change.changed.push_back(model.id);
      const std::lock_guard lock(mutex_);
      *std::find_if(settings_.begin(), settings_.end(), with_id(model.id)) = model;
    }
  }
  return change;
}

std::vector<pool::ModelSettings> FakeCatalogue::settings() const {
  const std::lock_guard lock(mutex_);
  return settings_;
}

std::vector<std::string> FakeCatalogue::loaded() const {
  const std::lock_guard lock(mutex_);
  return loaded_;
}

}  // namespace switchyard::gateway::testing
