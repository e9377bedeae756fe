#include "gateway/health.h"

#include <algorithm>

#include "gateway/json_writer.h"

namespace switchyard::gateway {
namespace {

bool is_ready(const pool::InstanceStatus& instance) { return instance.state == "ready"; }

// An instance without a model serves whichever it is asked for.
bool model_ready(const std::vector<pool::InstanceStatus>& instances, const std::string& model) {
  const auto has = [&](std::string_view role) {
    return std::any_of(instances.begin(), instances.end(), [&](const auto& instance) {
      return is_ready(instance) && instance.role == role &&
             (instance.model.empty() || instance.model == model);
    });
  };
  return has("unified") || (has("prefill") && has("decode"));
}

}  // namespace

HttpResponse health_response(const std::vector<pool::InstanceStatus>& instances,
                             const std::vector<std::string>& models, bool stopping) {
  bool ready = !stopping && std::all_of(instances.begin(), instances.end(), is_ready);
  for (const std::string& model : models) ready = ready && model_ready(instances, model);

  HttpResponse response;
  response.status = ready ? 200 : 503;
  JsonWriter writer(response.body);
  writer.begin_object();
  writer.key("status").string(stopping ? "stopping" : ready ? "ok" : "degraded");
  writer.key("models").begin_array();
  for (const std::string& model : models) {
    writer.begin_object().key("id").string(model);
    writer.key("ready").boolean(model_ready(instances, model)).end_object();
  }
  writer.end_array().key("instances").begin_array();
  for (const auto& instance : instances) {
    writer.begin_object();
    writer.key("name").string(instance.name).key("role").string(instance.role);
    writer.key("state").string(instance.state).key("model").string(instance.model);
    writer.key("detail").string(instance.detail).key("process").integer(instance.process);
    writer.key("restarts").integer(static_cast<std::int64_t>(instance.restarts));
    writer.end_object();
  }
  writer.end_array().end_object();
  return response;
}

}  // namespace switchyard::gateway
