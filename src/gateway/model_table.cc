#include "gateway/model_table.h"

namespace switchyard::gateway {

Result<ModelTable> ModelTable::create(const pool::Generator& generator, const ServedTextFactory& factory,
                                      Metrics& metrics) {
  ModelTable table;
  for (const pool::ServedModel& model : generator.models()) {
    auto text = factory(model);
    if (!text) return fail_at("model '" + model.id + "'", text.error());
    if (!table.models_.emplace(model.id, ModelEntry{model, std::move(*text), {}}).second) {
      return fail(ErrorCode::invalid, "model '{}' is served twice; ids must differ", model.id);
    }
  }
  for (auto& [id, entry] : table.models_) entry.metrics = metrics.for_model(id);
  return table;
}

ApiResult<const ModelEntry*> ModelTable::find(std::string_view id) const {
  const auto found = models_.find(id);
  if (found != models_.end()) return &found->second;
  constexpr std::size_t kMostNames = 10;
  std::string names;
  std::size_t count = 0;
  for (const auto& [name, entry] : models_) {
    if (count++ == kMostNames) {
      names += ", …";
      break;
    }
    names += (names.empty() ? "'" : ", '") + name + "'";
  }
  ApiError error;
  error.status = 404;
  error.message = fmt::format("The model '{}' does not exist. This server has: {}.", id.substr(0, 200),
                              names.empty() ? "none" : names);
  error.param = "model";
  error.code = "model_not_found";
  return tl::unexpected(std::move(error));
}

}  // namespace switchyard::gateway
