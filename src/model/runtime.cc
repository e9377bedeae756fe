#include "model/runtime.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "base/thread_team.h"
#include "model/cpu/kernels.h"
#include "model/cpu_workspace.h"
#include "model/packed_matrix.h"
#include "model/rope.h"
#include "model/runtime_buffers.h"
#include "model/runtime_weights.h"
#include "model/step_plan.h"

namespace switchyard::model {
namespace {

// With so few rows, every member normalises all of them for itself: cheaper than waiting for each other.
constexpr std::uint32_t kFewRows = 4;
// Partial results of attention split by segments, in floats; longer contexts are not split.
constexpr std::size_t kPartialFloats = std::size_t{1} << 20;

// What one member writes and nobody else reads.
struct Private {
  Activations normed;  // kFewRows rows
  Activations sums;    // kFewRows rows; only the sums are used
  float* attention = nullptr;
  float* partial = nullptr;
};

// Whole cache lines.
constexpr std::size_t whole_lines(std::size_t floats) { return (floats + 15) / 16 * 16; }

class CpuRuntime final : public Runtime {
 public:
  CpuRuntime(std::shared_ptr<const ModelImage> image, RuntimeWeights weights, std::span<std::byte> pool,
             const RuntimeOptions& options, std::shared_ptr<CpuWorkspace> workspace)
      : image_(std::move(image)),
        config_(image_->config()),
        layout_(model::kv_layout(config_)),
        weights_(std::move(weights)),
        pool_(pool.data()),
        kernels_(cpu::best_kernels()),
        limits_(make_limits(pool.size(), options)),
        workspace_(std::move(workspace)),
        team_(workspace_->team()),
        user_(workspace_->join()),
        rope_(workspace_->rope(rope_frequencies(config_, weights_.rope_factors))),
        plan_(options.max_rows, options.max_logit_rows),
        x_(options.max_rows, config_.hidden),
        normed_(options.max_rows, config_.hidden),
        qkv_(options.max_rows, (config_.heads + 2 * config_.kv_heads) * config_.head_dim),
        attended_(options.max_rows, config_.heads * config_.head_dim),
        gate_up_(options.max_rows, interleaved() ? 0 : 2 * gate_columns()),
        active_(options.max_rows, config_.intermediate) {
    const std::uint32_t widest =
        std::max({config_.hidden, config_.heads * config_.head_dim, config_.intermediate});
    privates_.resize(team_.size(), {Activations(kFewRows, config_.hidden), Activations(kFewRows, widest)});
    std::size_t shared = kPartialFloats;
    for (const Activations* each : {&x_, &normed_, &qkv_, &attended_, &gate_up_, &active_}) {
      shared += each->floats();
    }
    const Private& own = privates_.front();
    workspace_->reserve(shared, own.normed.floats() + own.sums.floats() + attention_floats() +
                                    cpu::kAttentionQueries * partial_stride());
  }

  Status step(std::span<const Chunk> chunks, std::span<float> logits, const LayerDone& layer_done) override {
    if (auto status = plan_.fill(chunks, logits.size(), limits_); !status) return status;
    if (plan_.rows.empty()) return {};
    try {
      rope_->grow(plan_.positions);
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::exhausted, "no memory for the rotations of {} positions", plan_.positions);
    }
    if (workspace_->take_turn(user_)) place_buffers();
    logits_ = logits.data();
    layer_done_ = &layer_done;
    team_.run([this](std::uint32_t member) { run(member); });
    return {};
  }

  const ModelConfig& config() const override { return config_; }
  const KvLayout& kv_layout() const override { return layout_; }

 private:
  StepPlan::Limits make_limits(std::size_t pool_bytes, const RuntimeOptions& options) const {
    const std::size_t blocks = pool_bytes / (block_units(layout_.block_bytes()) * kBlockUnit);
    return {.config = &config_,
            .pool_bytes = pool_bytes,
            .block_bytes = layout_.block_bytes(),
            .positions =
                static_cast<std::uint32_t>(std::min<std::size_t>(config_.context, blocks * kBlockTokens)),
            .max_rows = options.max_rows,
            .max_logit_rows = options.max_logit_rows,
            .tile_rows = std::max(1u, cpu::kAttentionQueries / group())};
  }

  std::size_t attention_floats() const {
    return whole_lines(cpu::attention_scratch_floats(config_.head_dim));
  }

  // Another runtime has computed in the workspace, or it has grown.
  void place_buffers() {
    float* at = workspace_->shared();
    for (Activations* each : {&x_, &normed_, &qkv_, &attended_, &gate_up_, &active_}) {
      each->place(at);
      at += each->floats();
    }
    partial_ = at;
    if (!interleaved()) {
      // Padding of the two parts becomes padding of their product.
      gate_up_.clear(config_.intermediate, gate_columns());
      gate_up_.clear(gate_columns() + config_.intermediate, 2 * gate_columns());
    }
    for (std::uint32_t member = 0; member < team_.size(); ++member) {
      Private& own = privates_[member];
      at = workspace_->own(member);
      own.normed.place(at);
      own.sums.place(at += own.normed.floats());
      own.attention = at += own.sums.floats();
      own.partial = at + attention_floats();
    }
  }

  std::uint32_t group() const { return config_.heads / config_.kv_heads; }
  bool interleaved() const { return weights_.layers.front().gate_up.size() == 1; }
  std::uint32_t gate_columns() const { return (config_.intermediate + 15) / 16 * 16; }
  std::size_t partial_stride() const { return config_.head_dim + cpu::kLanes; }
  bool few_rows() const { return rows_ <= kFewRows; }

  // The member's part of `rows` rows.
  template <class F>
  void share_rows(std::uint32_t member, std::uint32_t rows, F&& each) {
    const Share part = share(rows, member, team_.size());
    for (std::uint32_t row = part.first; row < part.last; ++row) each(row);
  }

  // Rows of x, normalised, with sums if `matrix` needs them.
  struct Input {
    Activations* values;
    Activations* sums;
  };
  Input normalise(std::uint32_t member, std::span<const float> weight, const PackedMatrix& matrix) {
    Activations& to = few_rows() ? privates_[member].normed : normed_;
    const auto one = [&](std::uint32_t row) {
      kernels_.rms_norm(x_.row(row), weight.data(), to.row(row), config_.hidden, config_.rms_epsilon);
      if (matrix.minimum) kernels_.group_sums(to.row(row), to.sums(row), to.groups());
    };
    if (few_rows()) {
      for (std::uint32_t row = 0; row < rows_; ++row) one(row);
    } else {
      share_rows(member, rows_, one);
      team_.barrier();
    }
    return {&to, &to};
  }

  // The same for values that are in their place already.
  Input with_sums(std::uint32_t member, Activations& values, const PackedMatrix& matrix) {
    if (!matrix.minimum) return {&values, &values};
    Activations& to = few_rows() ? privates_[member].sums : values;
    const auto one = [&](std::uint32_t row) {
      kernels_.group_sums(values.row(row), to.sums(row), values.groups());
    };
    if (few_rows()) {
      for (std::uint32_t row = 0; row < rows_; ++row) one(row);
    } else {
      share_rows(member, rows_, one);
      team_.barrier();
    }
    return {&values, &to};
  }

  // The member's panels of y = matrix * input.
  void multiply(std::uint32_t member, const PackedMatrix& matrix, const Input& input, float* y,
                std::size_t y_stride, std::uint32_t y_columns, cpu::Finish finish,
                const float* bias = nullptr) {
    const Share part = share(matrix.panels() / cpu::kPanelStep, member, team_.size());
    cpu::ProductTask task;
    task.format = matrix.format;
    task.finish = finish;
    task.minimum = matrix.minimum;
    task.wide_scales = matrix.wide_scales;
    task.group = matrix.group;
    task.columns = matrix.padded_columns();
    task.panels = matrix.bytes.data();
    task.panel_bytes = matrix.panel_bytes();
    task.first_panel = part.first * cpu::kPanelStep;
    task.last_panel = part.last * cpu::kPanelStep;
    task.rows = rows_;
    task.x = input.values->row(0);
    task.x_stride = input.values->stride();
    task.sums = matrix.minimum ? input.sums->sums(0) : nullptr;
    task.sums_stride = input.sums->sums_stride();
    task.y = y;
    task.y_stride = y_stride;
    task.y_columns = y_columns;
    task.bias = bias;
    kernels_.product(task);
  }

  void run(std::uint32_t member) {
    if (member == 0) rows_ = static_cast<std::uint32_t>(plan_.rows.size());
    share_rows(member, static_cast<std::uint32_t>(plan_.rows.size()), [&](std::uint32_t row) {
      unpack_row(weights_.embedding, static_cast<std::uint32_t>(plan_.rows[row].token),
                 std::span(x_.row(row), config_.hidden));
    });
    team_.barrier();
    for (std::uint32_t layer = 0; layer < config_.layers; ++layer) {
      project_qkv(member, weights_.layers[layer]);
      team_.barrier();
      store_keys_values(member, layer);
      const bool last = layer + 1 == config_.layers;
      team_.barrier();
      if (member == 0 && *layer_done_) (*layer_done_)(layer);
      if (last) {
        keep_logit_rows(member);
        if (rows_ == 0) return;
      }
      attend(member, layer, last ? plan_.last_tiles : plan_.tiles);
      team_.barrier();
      const LayerWeights& weights = weights_.layers[layer];
      multiply(member, weights.attention_output, with_sums(member, attended_, weights.attention_output),
               x_.row(0), x_.stride(), config_.hidden, cpu::Finish::add);
      team_.barrier();
      feed_forward(member, weights);
      team_.barrier();
    }
    const Input input = normalise(member, weights_.output_norm, weights_.output);
    multiply(member, weights_.output, input, logits_, config_.vocab, config_.vocab, cpu::Finish::store);
  }

  void project_qkv(std::uint32_t member, const LayerWeights& weights) {
    const Input input = normalise(member, weights.attention_norm, needs_sums(weights.qkv));
    std::uint32_t column = 0;
    for (const PackedMatrix& matrix : weights.qkv) {
      const float* bias = weights.qkv_bias.empty() ? nullptr : weights.qkv_bias.data() + column;
      multiply(member, matrix, input, qkv_.row(0) + column, qkv_.stride(), matrix.rows, cpu::Finish::store,
               bias);
      column += matrix.rows;
    }
  }

  // One of the matrices that needs sums, if there is one.
  static const PackedMatrix& needs_sums(std::span<const PackedMatrix> matrices) {
    const auto at =
        std::find_if(matrices.begin(), matrices.end(), [](const PackedMatrix& m) { return m.minimum; });
    return at == matrices.end() ? matrices.front() : *at;
  }

  // Rotates queries and keys, and writes keys and values into their blocks. An item is a head of a row.
  void store_keys_values(std::uint32_t member, std::uint32_t layer) {
    const std::uint32_t heads = config_.heads + 2 * config_.kv_heads;
    const Share part = share(rows_ * heads, member, team_.size());
    for (std::uint32_t item = part.first; item < part.last; ++item) {
      const StepRow& row = plan_.rows[item / heads];
      std::uint32_t head = item % heads;
      float* values = qkv_.row(item / heads) + std::size_t{head} * config_.head_dim;
      if (head < config_.heads + config_.kv_heads) {
        kernels_.rotate(values, rope_->cosines(row.position), rope_->sines(row.position), rope_->half());
      }
      if (head < config_.heads) continue;
      head -= config_.heads;
      const std::size_t offset = head < config_.kv_heads
                                     ? layout_.key_offset(layer, head)
                                     : layout_.value_offset(layer, head - config_.kv_heads);
      std::byte* to = pool_ + block_offset(row.block) + offset +
                      std::size_t{row.position % kBlockTokens} * config_.head_dim * layout_.element_bytes;
      kernels_.store_half(values, to, config_.head_dim);
    }
  }

  // Nothing but keys and values is wanted of other rows.
  void keep_logit_rows(std::uint32_t member) {
    if (plan_.logit_rows.size() == plan_.rows.size()) return;
    if (member == 0) {
      rows_ = static_cast<std::uint32_t>(plan_.logit_rows.size());
      for (std::uint32_t i = 0; i < rows_; ++i) {
        std::copy_n(x_.row(plan_.logit_rows[i]), config_.hidden, x_.row(i));
      }
    }
    team_.barrier();
  }

  cpu::AttentionTask attention_task(std::uint32_t member, std::uint32_t layer, const AttentionTile& tile,
                                    std::uint32_t kv_head) {
    cpu::AttentionTask task;
    task.q = qkv_.row(tile.first_row) + std::size_t{kv_head} * group() * config_.head_dim;
    task.q_stride = qkv_.stride();
    task.rows = tile.rows;
    task.heads = group();
    task.head_dim = config_.head_dim;
    task.position = tile.position;
    task.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    task.pool = pool_;
    task.block_stride = kBlockUnit;
    task.key_offset = layout_.key_offset(layer, kv_head);
    task.value_offset = layout_.value_offset(layer, kv_head);
    task.blocks = tile.blocks;
    task.partial_stride = partial_stride();
    task.scratch = privates_[member].attention;
    return task;
  }

  float* attended(std::uint32_t row, std::uint32_t head) {
    return attended_.row(row) + std::size_t{head} * config_.head_dim;
  }

  void attend(std::uint32_t member, std::uint32_t layer, std::span<const AttentionTile> tiles) {
    if (splits(tiles)) {
      attend_split(member, layer, tiles);
      return;
    }
    // Items in turn rather than in runs: later tiles of a chunk have more to do.
    const auto items = static_cast<std::uint32_t>(tiles.size()) * config_.kv_heads;
    for (std::uint32_t item = member; item < items; item += team_.size()) {
      const AttentionTile& tile = tiles[item / config_.kv_heads];
      const std::uint32_t kv_head = item % config_.kv_heads;
      cpu::AttentionTask task = attention_task(member, layer, tile, kv_head);
      task.last_segment = tile.segments();
      task.partial = privates_[member].partial;
      kernels_.attend(task);
      for (std::uint32_t query = 0; query < tile.rows * group(); ++query) {
        kernels_.finish_attention(
            task.partial + query * task.partial_stride, config_.head_dim,
            attended(tile.out_row + query / group(), kv_head * group() + query % group()));
      }
    }
  }

  // Whether there are too few tiles for the team, but long ones: their segments are then items of their own.
  // The numbers are the same either way.
  bool splits(std::span<const AttentionTile> tiles) const {
    if (tiles.size() * config_.kv_heads >= 4 * team_.size()) return false;
    std::size_t segments = 0;
    bool long_ones = false;
    for (const AttentionTile& tile : tiles) {
      if (tile.rows != 1) return false;
      segments += tile.segments();
      long_ones |= tile.segments() > 1;
    }
    return long_ones && segments * config_.heads * partial_stride() <= kPartialFloats;
  }

  // Partial results: [tile][segment][head].
  void attend_split(std::uint32_t member, std::uint32_t layer, std::span<const AttentionTile> tiles) {
    const std::size_t stride = config_.heads * partial_stride();
    std::uint32_t item = 0;
    std::size_t slot = 0;
    for (const AttentionTile& tile : tiles) {
      for (std::uint32_t segment = 0; segment < tile.segments(); ++segment, ++slot) {
        for (std::uint32_t kv_head = 0; kv_head < config_.kv_heads; ++kv_head, ++item) {
          if (item % team_.size() != member) continue;
          cpu::AttentionTask task = attention_task(member, layer, tile, kv_head);
          task.first_segment = segment;
          task.last_segment = segment + 1;
          task.partial = partial_ + slot * stride + kv_head * group() * partial_stride();
          kernels_.attend(task);
        }
      }
    }
    team_.barrier();
    slot = 0;
    for (const AttentionTile& tile : tiles) {
      for (std::uint32_t head = member; head < config_.heads; head += team_.size()) {
        float* first = partial_ + slot * stride + head * partial_stride();
        for (std::uint32_t segment = 1; segment < tile.segments(); ++segment) {
          kernels_.merge(first, first + segment * stride, config_.head_dim);
        }
        kernels_.finish_attention(first, config_.head_dim, attended(tile.out_row, head));
      }
      slot += tile.segments();
    }
  }

  void feed_forward(std::uint32_t member, const LayerWeights& weights) {
    const Input input = normalise(member, weights.ffn_norm, needs_sums(weights.gate_up));
    if (weights.gate_up.size() == 1) {
      multiply(member, weights.gate_up[0], input, active_.row(0), active_.stride(), config_.intermediate,
               cpu::Finish::swiglu);
    } else {
      for (std::uint32_t i = 0; i < 2; ++i) {
        multiply(member, weights.gate_up[i], input, gate_up_.row(0) + i * gate_columns(), gate_up_.stride(),
                 config_.intermediate, cpu::Finish::store);
      }
      team_.barrier();
      share_rows(member, rows_, [&](std::uint32_t row) {
        const float* gate = gate_up_.row(row);
        kernels_.swiglu(gate, gate + gate_columns(), active_.row(row), gate_columns());
      });
    }
    team_.barrier();
    multiply(member, weights.down, with_sums(member, active_, weights.down), x_.row(0), x_.stride(),
             config_.hidden, cpu::Finish::add);
  }

  std::shared_ptr<const ModelImage> image_;
  const ModelConfig& config_;
  KvLayout layout_;
  RuntimeWeights weights_;
  std::byte* pool_;
  const cpu::Kernels& kernels_;
  StepPlan::Limits limits_;

  std::shared_ptr<CpuWorkspace> workspace_;
  ThreadTeam& team_;
  const std::uint64_t user_;  // of the workspace
  std::shared_ptr<RopeTable> rope_;

  StepPlan plan_;
  std::uint32_t rows_ = 0;  // of the products; fewer than the step's in the last layer
  float* logits_ = nullptr;
  const LayerDone* layer_done_ = nullptr;

  // In the workspace, where place_buffers() put them.
  Activations x_;         // the residual stream
  Activations normed_;    // input of qkv and gate_up
  Activations qkv_;       // queries, keys and values side by side
  Activations attended_;  // input of attention_output
  Activations gate_up_;   // only where the two cannot be multiplied as one
  Activations active_;    // input of down
  float* partial_ = nullptr;
  std::vector<Private> privates_;
};

}  // namespace

KvLayout kv_layout(const ModelConfig& config) {
  return {.layers = config.layers, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
}

Result<std::unique_ptr<Runtime>> Runtime::create(std::shared_ptr<const ModelImage> image,
                                                 std::span<std::byte> kv_pool, const RuntimeOptions& options,
                                                 std::shared_ptr<RuntimeWorkspace> workspace) {
  if (image == nullptr) return fail(ErrorCode::invalid, "a runtime needs a model image");
  const ModelConfig& config = image->config();
  if (config.head_dim == 0 || config.head_dim % 16 != 0 || config.head_dim > 256) {
    return fail(ErrorCode::unsupported, "heads of {} dimensions; multiples of 16 up to 256 are supported",
                config.head_dim);
  }
  if (config.kv_heads == 0 || config.heads % config.kv_heads != 0 ||
      config.heads / config.kv_heads > cpu::kAttentionQueries) {
    return fail(ErrorCode::unsupported, "{} heads on {} KV heads", config.heads, config.kv_heads);
  }
  const KvLayout layout = model::kv_layout(config);
  if (kv_pool.size() < block_units(layout.block_bytes()) * kBlockUnit) {
    return fail(ErrorCode::invalid, "a KV pool of {} bytes holds no block of {} bytes", kv_pool.size(),
                layout.block_bytes());
  }
  if (reinterpret_cast<std::uintptr_t>(kv_pool.data()) % 64 != 0) {
    return fail(ErrorCode::invalid, "the KV pool is not aligned to 64 bytes");
  }
  if (options.max_rows == 0 || options.max_rows > 65536 || options.max_logit_rows > options.max_rows * 64 ||
      options.threads > 1024) {
    return fail(ErrorCode::invalid, "{} rows of a step (1 to 65536), {} threads (up to 1024)",
                options.max_rows, options.threads);
  }
  auto weights = RuntimeWeights::find(*image);
  if (!weights) return pass(weights.error());
  if (workspace == nullptr) {
    auto own = RuntimeWorkspace::create(options.threads);
    if (!own) return pass(own.error());
    workspace = *std::move(own);
  }
  auto cpu_workspace = std::dynamic_pointer_cast<CpuWorkspace>(std::move(workspace));
  if (cpu_workspace == nullptr) return fail(ErrorCode::invalid, "the workspace is not one of the CPU");
  try {
    return std::make_unique<CpuRuntime>(std::move(image), std::move(*weights), kv_pool, options,
                                        std::move(cpu_workspace));
  } catch (const std::exception& error) {
    return fail(ErrorCode::exhausted, "no memory for a runtime of {} rows: {}", options.max_rows,
                error.what());
  }
}

}  // namespace switchyard::model
