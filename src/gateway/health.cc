#include "gateway/health.h"

#include <algorithm>

#include "gateway/json_writer.h"

namespace switchyard::gateway {
namespace {

using pool::ModelState;

bool is_ready(const pool::InstanceStatus& instance) { return instance.state == "ready"; }

// Every instance serves every model.
bool can_serve(const std::vector<pool::InstanceStatus>& instances) {
  const auto has = [&](std::string_view role) {
    return std::any_of(instances.begin(), instances.end(),
                       [&](const auto& instance) { return is_ready(instance) && instance.role == role; });
  };
  return has("unified") || (has("prefill") && has("decode"));
}

void write_model(JsonWriter& writer, const pool::ServedModel& model, bool ready) {
  writer.begin_object().key("id").string(model.id);
  writer.key("ready").boolean(ready);
  writer.key("state").string(pool::to_string(model.state)).key("detail").string(model.detail);
  writer.key("resident_on").begin_array();
  for (const auto& instance : model.resident_on) writer.string(instance);
  writer.end_array().end_object();
}

void write_instance(JsonWriter& writer, const pool::InstanceStatus& instance) {
  writer.begin_object();
  writer.key("name").string(instance.name).key("role").string(instance.role);
  writer.key("state").string(instance.state).key("model").string(instance.model);
  writer.key("detail").string(instance.detail).key("process").integer(instance.process);
  writer.key("restarts").integer(static_cast<std::int64_t>(instance.restarts));
  writer.end_object();
}

}  // namespace

HttpResponse health_response(const std::vector<pool::InstanceStatus>& instances,
                             const std::vector<pool::ServedModel>& models, bool stopping) {
  const bool served = can_serve(instances);
  const auto ready = [&](const pool::ServedModel& model) {
    return served && model.state == ModelState::ready;
  };
  const auto fine = [&](const pool::ServedModel& model) {
    return ready(model) || model.state == ModelState::removing;
  };
  const bool usable = !stopping && std::any_of(models.begin(), models.end(), ready);
  const bool perfect = usable && std::all_of(models.begin(), models.end(), fine) &&
                       std::all_of(instances.begin(), instances.end(), is_ready);

  HttpResponse response;
  response.status = usable ? 200 : 503;
  JsonWriter writer(response.body);
  writer.begin_object();
  writer.key("status").string(stopping ? "stopping" : perfect ? "ok" : usable ? "degraded" : "unavailable");
  writer.key("models").begin_array();
  for (const auto& model : models) write_model(writer, model, ready(model));
  writer.end_array().key("instances").begin_array();
  for (const auto& instance : instances) write_instance(writer, instance);
  writer.end_array().end_object();
  return response;
}

}  // namespace switchyard::gateway
