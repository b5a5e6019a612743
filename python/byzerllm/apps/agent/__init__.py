"""Agents: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import modules, names

__getattr__ = names(
    __name__,
    """Agents Agent ChatResponse ConversableAgent UserProxyAgent AssistantAgent CommonAgent GroupChat GroupChatManager
    get_agent_name run_agent_func count_messages_length copy_message modify_message_metadata modify_message_content
    modify_last_message""",
)

modules(
    __name__,
    {
        "agent": "Agent",
        "conversable_agent": "ConversableAgent",
        "user_proxy_agent": "UserProxyAgent",
        "assistant_agent": "AssistantAgent",
        "common_agent": "CommonAgent",
        "groupchat": "GroupChat GroupChatManager",
        "store": "Message MessageStore",
        "store.memory_store": "MemoryStore",
        "store.stores": "Stores",
        "extensions": "",
        "extensions.byzer_engine_agent": "ByzerEngineAgent",
        "extensions.data_analysis": "DataAnalysis",
        "extensions.data_analysis_pipeline_agent": "DataAnalysisPipeline DataAnalysisPipelineManager",
        "extensions.output_agent": "OutputAgent",
        "extensions.planner": "PlannerAgent",
        "extensions.preview_file_agent": "PreviewFileAgent",
        "extensions.python_codesandbox_agent": "CodeSandbox PythonSandboxAgent",
        "extensions.query_rewrite": "Action QueryCondition QueryContext QueryRewriteResult QueryTime",
        "extensions.retrieval_agent": "RetrievalAgent",
        "extensions.rhetorical_agent": "RhetoricalAgent",
        "extensions.simple_retrieval_client": "SimpleRetrievalClient",
        "extensions.spark_sql_agent": "SparkSQLAgent",
        "extensions.sql_reviewer_agent": "SQLReviewerAgent",
        "extensions.visualization_agent": "VisualizationAgent",
    },
)
