// Functions that templates call by name.
#include <algorithm>
#include <array>
#include <ctime>

#include "model/jinja_evaluator.h"

namespace switchyard::model::jinja {
namespace {

constexpr std::array<std::string_view, 5> kFunctions = {"raise_exception", "strftime_now", "namespace",
                                                        "range", "dict"};

std::int64_t whole(const Value& value, std::string_view of) {
  std::int64_t out = 0;
  if (!value.integer(out))
    raise(ErrorCode::invalid, "'{}' is given a {} and not a whole number", of, value.type_name());
  return out;
}

Value range(Evaluator& evaluator, const Arguments& arguments) {
  arguments.check("range", {"start", "stop", "step"});
  const auto& given = arguments.positional;
  if (given.empty()) raise(ErrorCode::invalid, "'range' is given nothing");
  const std::int64_t start = given.size() > 1 ? whole(given[0], "range") : 0;
  const std::int64_t stop = whole(given.size() > 1 ? given[1] : given[0], "range");
  const std::int64_t step = given.size() > 2 ? whole(given[2], "range") : 1;
  if (step == 0) raise(ErrorCode::invalid, "'range' has the step zero");
  const auto limit = evaluator.limits().range;
  std::vector<Value> out;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<std::int64_t>(out.size()) >= limit) {
      raise(ErrorCode::exhausted, "'range' has more than {} numbers", limit);
    }
    out.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return evaluator.list(std::move(out));
}

Value strftime_now(Evaluator& evaluator, const Arguments& arguments) {
  arguments.check("strftime_now", {"format"});
  const Value* format = arguments.find(0, "format");
  if (format == nullptr || !format->string() || format->string()->size() > 256) {
    raise(ErrorCode::invalid, "'strftime_now' is not given a format of at most 256 bytes");
  }
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  std::array<char, 4096> out;
  const std::size_t length = std::strftime(out.data(), out.size(), format->string()->c_str(), &parts);
  return evaluator.text(std::string(out.data(), length));
}

}  // namespace

bool is_function(std::string_view name) {
  return std::find(kFunctions.begin(), kFunctions.end(), name) != kFunctions.end();
}

Value call_function(Evaluator& evaluator, std::string_view name, const Arguments& arguments) {
  if (name == "range") return range(evaluator, arguments);
  if (name == "strftime_now") return strftime_now(evaluator, arguments);
  if (name == "raise_exception") {
    const Value* message = arguments.find(0, "message");
    raise(ErrorCode::invalid, "the template refuses: {}",
          message != nullptr ? to_text(*message).substr(0, 4096) : "");
  }
  // namespace(mapping, name=value) and dict(mapping, name=value)
  std::vector<std::pair<Value, Value>> items;
  if (!arguments.positional.empty()) {
    const auto* dict = arguments.positional[0].dict();
    if (dict == nullptr)
      raise(ErrorCode::invalid, "'{}' is given a {} and not a mapping", name,
            arguments.positional[0].type_name());
    evaluator.work(dict->items.size());
    items = dict->items;
  }
  for (const auto& [key, value] : arguments.named) items.emplace_back(Value(key), value);
  if (name == "dict") return Value::dict(std::move(items));
  std::vector<std::pair<std::string, Value>> values;
  for (auto& [key, value] : items) values.emplace_back(to_text(key), std::move(value));
  return evaluator.make_namespace(std::move(values));
}

}  // namespace switchyard::model::jinja
