-- Pre-training (预训练): data in twelve partitions, twelve GPUs, conversion, and a deployment of what came out.
set ds_config='''
{
  "gradient_accumulation_steps": 1,
  "train_micro_batch_size_per_gpu": 1,
  "prescale_gradients": false,
  "zero_allow_untested_optimizer": true,
  "optimizer": {
    "type": "AdamW",
    "params": {"lr": 1e-8, "eps": 1.0e-8, "betas": [0.9, 0.95], "weight_decay": 0.1}
  },
  "tensorboard": {"enabled": true},
  "zero_optimization": {
    "stage": 3,
    "offload_optimizer": {"device": "cpu"},
    "offload_param": {"device": "cpu"},
    "contiguous_gradients": true,
    "allgather_bucket_size": 1e8,
    "reduce_bucket_size": 1e8,
    "overlap_comm": true,
    "reduce_scatter": true
  },
  "steps_per_print": 16,
  "gradient_clipping": 1.0,
  "wall_clock_breakdown": true,
  "bf16": {"enabled": true}
}
''';

load text.`file:///home/byzerllm/data/raw_data/*`
where wholetext="true" as trainData;

select value as text,file from trainData  as newTrainData;

run newTrainData as TableRepartition.`` where partitionNum="12" and partitionCols="file"
as finalTrainData;

!byzerllm setup sfft;
!byzerllm setup "num_gpus=12";

run command as LLM.`` where
and localPathPrefix="/home/byzerllm/models/sfft/jobs"
and pretrainedModelType="sfft/llama2"
and localModelDir="/home/byzerllm/models/Llama-2-7b-chat-hf"
and detached="true"
and keepPartitionNum="true"
and deepspeedConfig='''${ds_config}'''
and inputTable="finalTrainData"
and outputTable="llama2_cn"
and model="command"
and `sfft.int.max_length`="128"
and `sfft.bool.setup_nccl_socket_ifname_by_ip`="true"
;

!byzerllm setup single;

run command as LLM.`` where
action="convert"
and pretrainedModelType="deepspeed/llama3b"
and modelNameOrPath="/home/byzerllm/models/base_model"
and checkpointDir="/home/byzerllm/data/checkpoints"
and tag="Epoch-1"
and savePath="/home/byzerllm/models/my_3b_test2";

!byzerllm setup single;

set node="master";
!byzerllm setup "num_gpus=2";
!byzerllm setup "workerMaxConcurrency=1";

run command as LLM.`` where
action="infer"
and pretrainedModelType="custom/auto"
and localModelDir="/home/byzerllm/models/my_3b_test2"
and reconnect="false"
and udfName="my_3b_chat"
and modelTable="command";
