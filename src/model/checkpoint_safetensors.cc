#include <algorithm>
#include <set>

#include "model/checkpoint_parts.h"
#include "model/hf_config.h"
#include "model/safetensors.h"
#include "model/tensor_names.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxJsonFile = 64u << 20;
constexpr std::string_view kIndex = "model.safetensors.index.json";
// Files besides the weights whose bytes decide what the model says.
constexpr std::string_view kOtherFiles[] = {"generation_config.json", "tokenizer.json",
                                            "tokenizer_config.json",  "special_tokens_map.json",
                                            "chat_template.jinja",    "chat_template.json"};

struct Text {
  MappedFile mapping;
  std::string_view view() const {
    return {reinterpret_cast<const char*>(mapping.bytes().data()), mapping.bytes().size()};
  }
};

Result<Text> read_text(const fs::path& path) {
  auto mapping = MappedFile::open(path);
  if (!mapping) return pass(mapping.error());
  if (mapping->bytes().size() > kMaxJsonFile) {
    return fail(ErrorCode::unsupported, "{} has {} bytes; at most {} are read", path.string(),
                mapping->bytes().size(), kMaxJsonFile);
  }
  return Text{std::move(*mapping)};
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Which file holds which tensor; an empty map: whatever the files hold.
struct Shards {
  std::vector<fs::path> files;
  std::map<std::string, std::string, std::less<>> of_tensor;
};

Result<Shards> find_shards(const fs::path& directory, const std::vector<fs::path>& given) {
  Shards shards{.files = given};
  if (!given.empty()) return shards;
  const fs::path index = directory / kIndex;
  if (is_there(index)) {
    const auto text = read_text(index);
    if (!text) return pass(text.error());
    auto map = parse_safetensors_index(text->view());
    if (!map) return fail_at(index.string(), map.error());
    std::set<std::string> names;
    for (const auto& [tensor, file] : *map) names.insert(file);
    for (const std::string& name : names) shards.files.push_back(directory / name);
    shards.of_tensor = std::move(*map);
    return shards;
  }
  if (is_there(directory / "model.safetensors")) {
    shards.files.push_back(directory / "model.safetensors");
    return shards;
  }
  auto others = files_with_extension(directory, ".safetensors");
  if (!others) return pass(others.error());
  shards.files = std::move(*others);
  if (shards.files.size() == 1) return shards;
  return fail(ErrorCode::not_found, "{} has neither {} nor model.safetensors nor one other .safetensors file",
              directory.string(), kIndex);
}

Status add_tensors(const SafetensorsFile& file, const fs::path& path, const Shards& shards, bool tied,
                   std::vector<Tensor>& tensors) {
  const std::string file_name = path.filename().string();
  for (const SafetensorsTensor& entry : file.tensors) {
    if (is_ignored(NameScheme::hugging_face, entry.name)) continue;
    if (!shards.of_tensor.empty()) {
      const auto home = shards.of_tensor.find(entry.name);
      if (home == shards.of_tensor.end() || home->second != file_name) {
        return fail(ErrorCode::corrupt, "tensor '{}' is in a file that the index does not give for it",
                    entry.name);
      }
    }
    auto name = project_name(NameScheme::hugging_face, entry.name);
    if (!name)
      return fail(ErrorCode::unsupported, "tensor '{}' has no place in a model of this architecture",
                  entry.name);
    if (tied && *name == "output") continue;  // a copy of the embedding
    const auto type = dtype_from_safetensors(entry.type);
    if (!type) {
      return fail(ErrorCode::unsupported, "tensor '{}' is of type {}; F32, F16 and BF16 are read", entry.name,
                  entry.type);
    }
    tensors.push_back({.name = std::move(*name),
                       .original_name = entry.name,
                       .type = *type,
                       .shape = entry.shape,
                       .bytes = entry.bytes});
  }
  return {};
}

std::vector<fs::path> all_files(const fs::path& directory, const Shards& shards) {
  std::vector<fs::path> files = {directory / "config.json"};
  for (const std::string_view name : kOtherFiles) {
    if (is_there(directory / name)) files.push_back(directory / name);
  }
  if (!shards.of_tensor.empty()) files.push_back(directory / kIndex);
  files.insert(files.end(), shards.files.begin(), shards.files.end());
  return files;
}

Result<ModelConfig> read_config(const fs::path& directory) {
  const auto config = read_text(directory / "config.json");
  if (!config) return pass(config.error());
  const fs::path generation_path = directory / "generation_config.json";
  Text generation;
  if (is_there(generation_path)) {
    auto text = read_text(generation_path);
    if (!text) return pass(text.error());
    generation = std::move(*text);
  }
  auto model = parse_hf_config(config->view(), generation.view());
  if (!model) return fail_at(directory.string(), model.error());
  if (model->name.empty()) {
    std::error_code error;
    model->name = printable_name(fs::weakly_canonical(directory, error).filename().string());
  }
  return model;
}

}  // namespace

Result<std::vector<fs::path>> safetensors_files(const fs::path& directory,
                                                const std::vector<fs::path>& files) {
  const auto shards = find_shards(directory, files);
  if (!shards) return pass(shards.error());
  return all_files(directory, *shards);
}

Result<CheckpointParts> read_safetensors(const fs::path& directory, const std::vector<fs::path>& files) {
  CheckpointParts parts;
  parts.format = "safetensors";
  parts.directory = directory;
  auto config = read_config(directory);
  if (!config) return pass(config.error());
  parts.config = std::move(*config);
  const auto shards = find_shards(directory, files);
  if (!shards) return pass(shards.error());
  parts.files = all_files(directory, *shards);
  std::vector<Tensor> tensors;
  for (const fs::path& path : shards->files) {
    auto mapping = MappedFile::open(path);
    if (!mapping) return pass(mapping.error());
    const auto file = SafetensorsFile::parse(mapping->bytes());
    if (!file) return fail_at(path.string(), file.error());
    auto status = add_tensors(*file, path, *shards, parts.config.tied_embeddings, tensors);
    if (!status) return fail_at(path.string(), status.error());
    parts.mappings.push_back(std::move(*mapping));
  }
  auto arranged = arrange_tensors(parts.config, std::move(tensors));
  if (!arranged) return fail_at(directory.string(), arranged.error());
  parts.tensors = std::move(*arranged);
  return parts;
}

}  // namespace switchyard::model
